"""Results for people and for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from uringd.conformance.runner import FAILED, PASSED, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.conformance.case import Case
    from uringd.conformance.runner import Result


class Progress:
    """On a terminal, how many cases were run and which was the last one; failures at once."""

    def __init__(self, count: int, *, quiet: bool) -> None:
        self._count = count
        self._done = 0
        self._line = not quiet and sys.stderr.isatty()
        self._quiet = quiet

    def __call__(self, result: Result) -> None:
        """Take a result."""
        self._done += 1
        if result.outcome == FAILED and not self._quiet:
            self._clear()
            click.echo(failure(result))
        if self._line:
            click.echo(f"\r{self._done}/{self._count} {result.case.id}\x1b[K", err=True, nl=False)
        if self._done == self._count:
            self._clear()

    def _clear(self) -> None:
        if self._line:
            click.echo("\r\x1b[K", err=True, nl=False)


def failure(result: Result) -> str:
    """Say in four lines which rule was not kept."""
    case = result.case
    return (
        f"FAILED {case.id} ({case.section}): {case.requirement}\n"
        f"  expected {result.expected}\n"
        f"  got      {result.got}"
    )


def summary(results: Sequence[Result]) -> str:
    """Lay out a table by section, and why cases were skipped."""
    sections = list(dict.fromkeys(result.case.section for result in results))
    width = max([len(section) for section in sections] + [len("section")])
    lines = [f"{'section':<{width}}  passed  failed  skipped"]
    for section in [*sections, ""]:
        outcomes = [r.outcome for r in results if section in {r.case.section, ""}]
        counts = [outcomes.count(outcome) for outcome in (PASSED, FAILED, SKIPPED)]
        row = f"{counts[0]:>6}  {counts[1]:>6}  {counts[2]:>7}"
        lines.append(f"{section or 'all':<{width}}  {row}")
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == SKIPPED:
            reasons.setdefault(result.got, []).append(result.case.id)
    for reason, ids in reasons.items():
        shown = ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"
        lines.append(f"skipped {shown}: {reason}")
    return "\n".join(lines)


def listed(cases: Sequence[Case]) -> str:
    """Lay out the cases, one on a line."""
    return "\n".join(f"{case.id}  {case.section}: {case.requirement}" for case in cases)


def case_facts(case: Case) -> dict[str, Any]:
    """Turn a case into what JSON says of it."""
    return {
        "id": case.id,
        "section": case.section,
        "requirement": case.requirement,
        "needs": list(case.needs),
        "codes": [code.name for code in case.codes],
    }


def result_facts(result: Result) -> dict[str, Any]:
    """Turn a result into what JSON says of it."""
    return case_facts(result.case) | {
        "outcome": result.outcome,
        "seconds": round(result.seconds, 3),
        "expected": result.expected,
        "got": result.got,
    }
