"""The report as text: blocks of Markdown, one for each job, and the same on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.harness.acceptance import markdown_lines, measured_text, merged_lines
from bench.harness.figures import figures_of
from bench.harness.method import environment_lines
from bench.harness.remarks import remarks
from bench.harness.suites import suite_of
from bench.harness.tables import markdown_table, rich_table
from bench.harness.units import rounds_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.harness.jobs import Job
    from bench.harness.results import Result


def blocks_of(result: Result, images: Mapping[str, str]) -> dict[str, str]:
    """Write a block of Markdown for the acceptance table and for each job that has runs."""
    blocks = {suite_of(result).acceptance: _acceptance(result)}
    for job in result.settings.jobs:
        if any(run.job == job.name for run in result.runs):
            blocks[job.name] = _job(result, job, images)
    return blocks


def rejudged(block: str, result: Result) -> str:
    """Write what a part of a run has measured into the table of demands of a whole one."""
    judged = suite_of(result).judge(result)
    return "\n".join(merged_lines(block.splitlines(), judged, _origin(result)))


def judges_all(result: Result) -> bool:
    """Whether a result has all that is asked, so that its table of demands says it all."""
    return all(verdict.met is not None for verdict in suite_of(result).judge(result))


def _acceptance(result: Result) -> str:
    said = [" ".join(environment_lines(result.environment)), "", *_interrupted(result)]
    return "\n".join([*said, *markdown_lines(suite_of(result).judge(result))])


def _job(result: Result, job: Job, images: Mapping[str, str]) -> str:
    lines = [f"**{job.title}** ({_origin(result)})", ""]
    for name in suite_of(result).pictures_of(job):
        if name in images:
            lines += [f"![{job.title}]({images[name]})", ""]
    for sheet in suite_of(result).sheets(result, job):
        lines += markdown_table(sheet)
    lines += [f"- {remark}" for remark in remarks(result, job)]
    return "\n".join(lines)


def _origin(result: Result) -> str:
    said = result.environment
    return f"{rounds_text(result.settings.rounds)}, {said['date']}, commit {said['commit']}"


def _interrupted(result: Result) -> list[str]:
    return ["This run was interrupted: what it has is whole, but not all.", ""] * result.interrupted


def whole_text(result: Result, images: Mapping[str, str]) -> str:
    """Write a report of its own, method first."""
    blocks = blocks_of(result, images)
    method = [f"- {line}" for line in result.method]
    suite = suite_of(result)
    judged = blocks.pop(suite.acceptance)
    parts = [f"# A run of `{suite.command}`", judged, "## Method", "\n".join(method)]
    return "\n\n".join([*parts, *(f"## {name}\n\n{text}" for name, text in blocks.items())]) + "\n"


def show(result: Result) -> None:
    """Print the tables and what to know beside them, and at last what was asked and is met."""
    console = Console()
    for job in result.settings.jobs:
        sheets = suite_of(result).sheets(result, job)
        if sheets:
            print(f"\n{job.name}: {job.title}")
        for sheet in sheets:
            print(f"\n{sheet.caption}" if sheet.caption else "")
            console.print(rich_table(sheet))
        for remark in remarks(result, job):
            print(f"- {remark}")
    print("\nwhat is asked, and what was measured")
    for verdict in suite_of(result).judge(result):
        met = {True: "met", False: "NOT MET", None: "-"}[verdict.met]
        print(f"  {met:8}{measured_text(verdict.measured)}, {verdict.asked}: {verdict.figure}")


def derived(result: Result) -> dict[str, Any]:
    """Give the figures and verdicts as plain values, for readers without this code."""
    figures = {
        job.name: {
            cell.name: {
                name: found.to_json() for name, found in figures_of(result, job, cell).items()
            }
            for cell in job.cells
        }
        for job in result.settings.jobs
    }
    verdicts = [
        {
            "figure": verdict.figure,
            "asked": verdict.asked,
            "measured": measured_text(verdict.measured),
            "met": verdict.met,
            "note": verdict.note,
        }
        for verdict in suite_of(result).judge(result)
    ]
    return {"figures": figures, "acceptance": verdicts}
