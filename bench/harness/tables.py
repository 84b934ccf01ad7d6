"""Tables: the same rows for a terminal and for Markdown, ratios first, then what to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.contenders import CONTENDERS, FIO, OS_WRITE, THREADS
from bench.harness.figures import MIB, Figures, Spread
from bench.harness.method import environment_lines, rounds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.harness.results import Result

COLUMNS = (
    "contender",
    "x fio",
    "x os.write",
    "MiB/s",
    "MiB/s by wall",
    "CPU s/GiB",
    "kernel threads s/GiB",
    "peak RSS MiB",
)
NARROW = (
    "",
    "x fio",
    "x os\n.write",
    "MiB/s",
    "by\nwall",
    "CPU\ns/GiB",
    "kernel\nthreads",
    "RSS\nMiB",
)
"""The same for a terminal of 80 columns, where a column is as wide as its figures."""
NOTHING = "-"
TWO_DIGITS = 10
"""From here on a ratio has one decimal: the second would say nothing."""

Cell = tuple[str, str]
"""A median, and the lowest and highest value, or nothing, where there is no more to say."""


def rows(figures: Mapping[str, Figures]) -> dict[str, list[Cell]]:
    """Give each contender its cells, in the order of COLUMNS after the first."""
    return {
        name: [
            ratio_cell(found.over.get(FIO)),
            ratio_cell(found.over.get(OS_WRITE)),
            _cell(found.rate, 0),
            (f"{found.wall_rate.median:.0f}", ""),
            _cell(found.cpu, 2),
            (NOTHING if found.kworkers is None else f"{found.kworkers.median:.2f}", ""),
            (NOTHING if found.rss_bytes is None else f"{found.rss_bytes / MIB:.0f}", ""),
        ]
        for name, found in figures.items()
    }


def remarks(result: Result, figures: Mapping[str, Figures]) -> list[str]:
    """Say what a reader has to know beside the figures: nothing is left out in silence."""
    said = [f"{name} did not take part: {why}." for name, why in result.missing.items()]
    for name, found in figures.items():
        if found.client_cpu is not None:
            spent = f"{found.client_cpu.median:.2f} CPU s/GiB"
            said.append(f"{name}: the client used {spent}, with its start-up.")
        said += [f"{name}: {note}" for note in _downgrades(result, name)]
    disturbed = sum(found.disturbed for found in figures.values())
    unrested = sum(found.unrested for found in figures.values())
    if OS_WRITE in figures and result.settings.memory == "as-is":
        said.append(
            "Free memory was left as it was. In a virtual machine its host may have to grant it "
            "first, and os.write is then slower than on a machine in use: --memory in-use."
        )
    if disturbed:
        said.append(
            f"{disturbed} of {len(result.runs)} runs were disturbed: other processes used more "
            "than a tenth of the CPUs meanwhile."
        )
    if unrested:
        said.append(
            f"{unrested} of {len(result.runs)} runs began while the disk was still busy with "
            "something else."
        )
    return said


def show(result: Result, figures: Mapping[str, Figures]) -> None:
    """Print the table, and what to know beside it."""
    print(f"\n{_title(result)}\n")
    Console().print(rich_table(figures))
    for remark in remarks(result, figures):
        print(f"- {remark}")


def rich_table(figures: Mapping[str, Figures]) -> Table:
    """Draw the table for a terminal of 80 columns: the spread stands below its median."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in NARROW:
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, cells in rows(figures).items():
        table.add_row(
            name,
            *(f"{median}\n[dim]{spread}[/dim]" if spread else median for median, spread in cells),
        )
    return table


def markdown(result: Result, figures: Mapping[str, Figures], image: str = "") -> str:
    """Write the block of a README: what it was measured on, the table, the remarks."""
    lines = [f"**{_title(result)}**", "", " ".join(environment_lines(result.environment)), ""]
    lines.append("| " + " | ".join(COLUMNS) + " |")
    lines.append("| --- |" + " ---: |" * (len(COLUMNS) - 1))
    for name, cells in rows(figures).items():
        texts = (f"{median} ({spread})" if spread else median for median, spread in cells)
        lines.append(f"| {CONTENDERS[name].title} | " + " | ".join(texts) + " |")
    if told := remarks(result, figures):
        lines += ["", *(f"- {remark}" for remark in told)]
    if image:
        lines += ["", f"![{_title(result)}]({image})"]
    return "\n".join(lines)


def ratio_cell(ratio: Spread | None) -> Cell:
    """Say a ratio; a reference's own is 1 and has no spread."""
    if ratio is None:
        return NOTHING, ""
    return (
        ("1", "")
        if ratio.low == ratio.high == 1
        else _cell(ratio, 2 if ratio.high < TWO_DIGITS else 1)
    )


def _title(result: Result) -> str:
    settings = result.settings
    sizes = f"{size_text(settings.size_bytes)}, {size_text(settings.block_bytes)} blocks"
    return f"Fresh file of {sizes}, durable: median of {rounds_text(settings.rounds)}"


def _cell(spread: Spread, digits: int) -> Cell:
    median = f"{spread.median:.{digits}f}"
    if spread.count == 1:
        return median, ""
    return median, f"{spread.low:.{digits}f}-{spread.high:.{digits}f}"


def _downgrades(result: Result, name: str) -> list[str]:
    """Find what a contender says it could not have, each once."""
    if name == THREADS:  # it is what was asked for
        return []
    said: dict[str, None] = {}
    for run in result.runs_of(name):
        facts = run.measurement.facts
        receipt = facts.get("receipt", facts)
        if receipt.get("direct") is False:
            said["written through the page cache, not direct."] = None
        if receipt.get("backend") == "threads":
            said["written by worker threads, not io_uring."] = None
        if receipt.get("registered") is False:
            said["the slots were not registered."] = None
        for note in facts.get("notes", []):
            said[note + "."] = None
    return list(said)
