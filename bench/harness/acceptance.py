"""What this project asks of itself, and whether one result has it: figure, asked, measured, met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.harness import contenders as known
from bench.harness.contenders import CONTENDERS
from bench.harness.figures import Spread, cpu_s, latency_of, paired, speed, spread_of
from bench.harness.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.cell import Cell
    from bench.harness.figures import Value
    from bench.harness.jobs import Job
    from bench.harness.results import Result

PEER_RATIO_MIN = 1.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row. `met` is by the median; None when it was not measured."""

    figure: str
    asked: str
    measured: Spread | None
    met: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one cell of one job: the ratio of a value of `ours` over that of `theirs`.

    `block_bytes` tells the cell, and `depth` where there are several with such blocks. Exactly one
    of `at_least` and `at_most` is given; `hoped` is what would be better still.
    """

    figure: str
    job: str
    block_bytes: int
    ours: str
    theirs: str
    value: Value = speed
    at_least: float | None = None
    at_most: float | None = None
    hoped: float | None = None
    depth: int | None = None

    def judge(self, result: Result) -> Verdict:
        """Look it up in a result."""
        ratio = None
        for job, cell in _cells(result, self.job, self.block_bytes, self.depth):
            ours, theirs = (result.runs_of(job, cell, name) for name in (self.ours, self.theirs))
            ratio = paired(ours, theirs, self.value)
        note = ""
        if self.hoped and ratio:
            note = f"{ratio.median / self.hoped:.0%} of the {self.hoped:g} hoped for"
        return verdict_of(self.figure, ratio, self.at_least, self.at_most, note)


DEMANDS = (
    Demand(
        "fresh file, 1 MiB, slots, durable and published, over fio fallocated QD16 end_fsync",
        "fresh",
        MIB,
        known.SLOTS,
        known.FIO,
        at_least=0.97,
    ),
    Demand(
        "the same over os.write + fsync",
        "fresh",
        MIB,
        known.SLOTS,
        known.OS_WRITE,
        at_least=2.5,
        hoped=3.2,
    ),
    Demand(
        "write(data), with the copy, over fio",
        "fresh",
        MIB,
        known.WRITE,
        known.FIO,
        at_least=0.85,
    ),
    Demand(
        "CPU s/GiB through slots, over fio's",
        "fresh",
        MIB,
        known.SLOTS,
        known.FIO,
        value=cpu_s,
        at_most=1.2,
    ),
    Demand(
        "CPU s/GiB through slots, over os.write's",
        "fresh",
        MIB,
        known.SLOTS,
        known.OS_WRITE,
        value=cpu_s,
        at_most=0.05,
    ),
    Demand(
        "4 KiB random overwrite QD128, awaited one by one, over fio",
        "random",
        4 * KIB,
        known.PWRITE,
        known.FIO,
        at_least=0.75,
    ),
    Demand(
        "4 KiB random overwrite QD128, pwrite_many, over fio",
        "random",
        4 * KIB,
        known.PWRITE_MANY,
        known.FIO,
        at_least=0.95,
    ),
    Demand(
        "p99 of a 1 MiB write at QD8, over fio's",
        "latency",
        MIB,
        known.PWRITE,
        known.FIO,
        value=latency_of("99"),
        at_most=1.25,
    ),
    *(
        Demand(
            f"chain (a record and its fsync) over awaiting one after another, {logs}",
            "chain",
            4 * KIB,
            known.CHAIN,
            known.ONE_BY_ONE,
            at_least=1.0,
            depth=depth,
        )
        for depth, logs in ((1, "1 log"), (4, "4 logs"), (32, "32 logs"))
    ),
)

CACHED_SHARE_MAX = 0.01


def judge(result: Result) -> list[Verdict]:
    """Judge a result by all demands."""
    verdicts = [demand.judge(result) for demand in DEMANDS]
    verdicts.append(_page_cache(result))
    for block in (MIB, 4 * MIB):
        verdicts += [_fastest_library(result, block), _fastest_as_it_comes(result, block)]
    return verdicts


def _page_cache(result: Result) -> Verdict:
    share = None
    for job, cell in _cells(result, "fresh", MIB):
        runs, size = result.runs_of(job, cell, known.SLOTS), cell.size_bytes
        found = spread_of(runs, lambda run: run.cached_bytes)
        share = found.times(1 / size) if found else None
    figure = "page cache that a direct write leaves, share of the file"
    return verdict_of(figure, share, None, CACHED_SHARE_MAX)


def _fastest_library(result: Result, block_bytes: int) -> Verdict:
    """Compare with the fastest library, whatever its caller does for it."""
    ratios = _over_libraries(result, block_bytes)
    return _lowest(f"slots over the fastest Python library, {block_bytes // MIB} MiB", ratios)


def _fastest_as_it_comes(result: Result, block_bytes: int) -> Verdict:
    """Compare with the fastest of those whose own interface does the work."""
    found = _over_libraries(result, block_bytes)
    ratios = {name: ratio for name, ratio in found.items() if not CONTENDERS[name].note}
    return _lowest(
        f"the same, over the fastest that opens its file itself, {block_bytes // MIB} MiB", ratios
    )


def _over_libraries(result: Result, block_bytes: int) -> dict[str, Spread]:
    """Take the ratio of slots over each library."""
    found: dict[str, Spread] = {}
    for job, cell in _cells(result, "peers", block_bytes):
        ours = result.runs_of(job, cell, known.SLOTS)
        for name in job.contenders:
            ratio = paired(ours, result.runs_of(job, cell, name), speed)
            if CONTENDERS[name].kind == "library" and ratio:
                found[name] = ratio
    return found


def _lowest(figure: str, found: dict[str, Spread]) -> Verdict:
    """Judge the lowest ratio, which is that over the fastest."""
    if not found:
        return verdict_of(figure, None, PEER_RATIO_MIN, None)
    name = min(found, key=lambda name: found[name].median)
    fastest = CONTENDERS[name]
    note = f"it is {fastest.title}" + (f": {fastest.note}" if fastest.note else "")
    return verdict_of(figure, found[name], PEER_RATIO_MIN, None, note)


def _cells(
    result: Result, job_name: str, block_bytes: int, depth: int | None = None
) -> Iterator[tuple[Job, Cell]]:
    """Find the cell, if that job ran: its figures are those of the one with such blocks."""
    for job in result.settings.jobs:
        for cell in job.cells:
            found = (job.name, cell.block_bytes) == (job_name, block_bytes)
            if found and depth in {None, cell.depth}:
                yield job, cell


def verdict_of(
    figure: str,
    measured: Spread | None,
    at_least: float | None,
    at_most: float | None,
    note: str = "",
) -> Verdict:
    """Judge by the median. Exactly one of `at_least` and `at_most` is given."""
    assert (at_least is None) != (at_most is None)
    asked = f"at most {at_most:g}" if at_least is None else f"at least {at_least:g}"
    if measured is None:
        return Verdict(figure, asked, None, None, "not measured")
    met = measured.median <= at_most if at_most is not None else measured.median >= (at_least or 0)
    return Verdict(figure, asked, measured, met, note)


HEAD = ["| figure | asked | measured | |", "| --- | ---: | ---: | --- |"]


def markdown_lines(verdicts: list[Verdict]) -> list[str]:
    """Write the rows as a table of Markdown."""
    return HEAD + [_row(verdict) for verdict in verdicts]


def merged_lines(lines: list[str], verdicts: list[Verdict], origin: str) -> list[str]:
    """Write the rows of what was measured over those of a table of the same demands.

    Each says where it comes from. Where there is no table yet, there is none then. Raises
    ValueError if it has other rows.
    """
    if HEAD[-1] not in lines:
        return lines
    first = lines.index(HEAD[-1]) + 1
    merged = list(lines)
    for at, verdict in enumerate(verdicts, first):
        if at >= len(lines) or not lines[at].startswith(f"| {verdict.figure} |"):
            raise ValueError(f"the table has no row for: {verdict.figure}")
        if verdict.met is not None:
            merged[at] = _row(verdict, f"; {origin}")
    return merged


def _row(verdict: Verdict, origin: str = "") -> str:
    said = {True: "met", False: "**not met**", None: "not measured"}[verdict.met]
    note = f"; {verdict.note}" if verdict.note and verdict.met is not None else ""
    measured = measured_text(verdict.measured)
    return f"| {verdict.figure} | {verdict.asked} | {measured} | {said}{note}{origin} |"


def measured_text(spread: Spread | None) -> str:
    """Say a ratio with its spread; small ones need their digits."""
    if spread is None:
        return "-"
    digits = 2 if spread.high >= 0.1 else 4
    text = f"{spread.median:.{digits}f}"
    return (
        text if spread.count == 1 else f"{text} ({spread.low:.{digits}f}-{spread.high:.{digits}f})"
    )
