"""One case after another, each within its time, whatever the server does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from uringd.conformance.case import FailedError, SkippedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uringd.conformance.case import Case
    from uringd.conformance.target import Target

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

WAITS_MAX = 8
"""A case may take so many times the bound of one wait: a server that answers each question at the
last moment, or goes on sending what nobody asked for, is not waited for without end."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case. `expected` and `got` say why it failed, `got` why it was skipped."""

    case: Case
    outcome: str
    seconds: float
    expected: str = ""
    got: str = ""


async def run(
    target: Target, cases: Sequence[Case], tell: Callable[[Result], None]
) -> list[Result]:
    """Run cases in order; `tell` is called with each result as it comes.

    `target.probe` was called before. What a case leaves unfinished is aborted after it.
    """
    results = []
    try:
        for case in cases:
            result = await _run(target, case)
            results.append(result)
            tell(result)
    finally:
        if target.leaving is not None:
            with anyio.CancelScope(shield=True):
                await target.leaving.aclose()
    return results


async def _run(target: Target, case: Case) -> Result:
    began = time.monotonic()
    outcome, expected, got = await _outcome(target, case)
    return Result(case, outcome, time.monotonic() - began, expected, got)


async def _outcome(target: Target, case: Case) -> tuple[str, str, str]:
    lacking = [feature for feature in case.needs if feature not in target.features]
    if lacking:
        return SKIPPED, "", f"the server does not offer {' and '.join(lacking)}"
    limit_s = WAITS_MAX * target.timeout_s
    try:
        with anyio.fail_after(limit_s):
            await case.look(target)
    except SkippedError as exc:
        return SKIPPED, "", str(exc)
    except FailedError as exc:
        return FAILED, exc.expected, exc.got
    except TimeoutError:
        return FAILED, "an end of the case", f"none within {limit_s:.0f} s"
    finally:
        await _clean_up(target)
    return PASSED, "", ""


async def _clean_up(target: Target) -> None:
    """Abort what the case has left; a server that fails at it has failed cases to say so."""
    try:
        await target.clean_up()
    except FailedError:
        target.unfinished.clear()
