"""From runs to figures: medians with their spread, and ratios of what ran side by side.

A ratio is taken within a round, of two measurements a few seconds apart, and only then is the
median taken over the rounds. On a machine that is faster today than yesterday, or this minute than
the last, such a ratio still holds when a ratio of two medians does not.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from bench.harness.units import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.harness.cell import Cell
    from bench.harness.jobs import Job
    from bench.harness.results import Result, Run

    Value = Callable[[Run], float | None]

DISTURBED_SHARE = 0.1
"""Other processes used more than this share of all CPUs during a measurement: it is marked."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and how far the values lie from it. `mad` is the median absolute deviation."""

    median: float
    low: float
    high: float
    mad: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Take at least one value."""
        known = sorted(values)
        median = statistics.median(known)
        mad = statistics.median(abs(value - median) for value in known)
        return cls(median, known[0], known[-1], mad, len(known))

    def times(self, factor: float) -> Spread:
        """Give it in another unit."""
        median, low, high, mad = (
            value * factor for value in (self.median, self.low, self.high, self.mad)
        )
        return Spread(median, low, high, mad, self.count)


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of one contender in one cell.

    `rate` and `wall_rate` in MiB/s, by the time that counts and by the time around all of it;
    `cpu` and `kworkers` in CPU seconds per GiB, `client_cpu` too where there is a client;
    `over` the ratios of rates over the job's references; `cached` the share of the file in the page
    cache afterwards; `latency_us` and its ratios over the main reference by percentile;
    `rss_bytes` the highest peak. `disturbed` and `unrested` count runs.
    """

    rate: Spread
    wall_rate: Spread
    cpu: Spread
    kworkers: Spread | None
    client_cpu: Spread | None
    over: dict[str, Spread]
    cached: Spread | None
    latency_us: dict[str, Spread]
    latency_over: dict[str, Spread]
    rss_bytes: int | None
    disturbed: int
    unrested: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


CellFigures = dict[str, Figures]
"""By contender, in the order in which they were asked for."""


def figures_of(result: Result, job: Job, cell: Cell) -> CellFigures:
    """Compute the figures of every contender that has runs in a cell."""
    found = {name: result.runs_of(job, cell, name) for name in job.contenders}
    return {name: _figures(result, job, cell, found, name) for name in found if found[name]}


def paired(ours: Iterable[Run], theirs: Iterable[Run], value: Value) -> Spread | None:
    """Take the ratio of a value round by round; None when the two never ran in the same round."""
    references = {run.round: value(run) for run in theirs}
    pairs = [(value(run), references.get(run.round)) for run in ours]
    ratios = [mine / other for mine, other in pairs if mine is not None and other]
    return Spread.of(ratios) if ratios else None


def spread_of(runs: Iterable[Run], value: Value) -> Spread | None:
    """Take a value of every run that has it; None when none has."""
    known = [found for found in map(value, runs) if found is not None]
    return Spread.of(known) if known else None


def speed(run: Run) -> float:
    """Be bigger for the faster: runs of one cell all write the same."""
    return 1 / run.measurement.seconds


def cpu_s(run: Run) -> float:
    """CPU seconds of the contender's process, its io-wq workers included."""
    return run.measurement.user_s + run.measurement.system_s


def latency_of(percentile: str) -> Value:
    """Make the function that takes this percentile, in microseconds."""

    def value(run: Run) -> float | None:
        found: dict[str, float] = run.measurement.facts.get("latency_us", {})
        return found.get(percentile)

    return value


def _figures(
    result: Result, job: Job, cell: Cell, found: dict[str, list[Run]], name: str
) -> Figures:
    runs = found[name]
    size, gib = cell.size_bytes, cell.size_bytes / GIB
    cpus = int(result.environment["cpu_count"])
    peaks = [run.measurement.rss_bytes for run in runs if run.measurement.rss_bytes is not None]
    percentiles = latency_names(runs) if cell.timed else []
    return Figures(
        rate=Spread.of(size / MIB / run.measurement.seconds for run in runs),
        wall_rate=Spread.of(size / MIB / run.measurement.wall_s for run in runs),
        cpu=Spread.of(cpu_s(run) / gib for run in runs),
        kworkers=_scaled(runs, lambda run: run.measurement.kworkers_s, 1 / gib),
        client_cpu=_scaled(runs, lambda run: run.measurement.facts.get("client_cpu_s"), 1 / gib),
        over=_known({other: paired(runs, found.get(other, []), speed) for other in job.over}),
        cached=_scaled(runs, lambda run: run.cached_bytes, 1 / size),
        latency_us=_known({p: spread_of(runs, latency_of(p)) for p in percentiles}),
        latency_over=_known(
            {p: paired(runs, found.get(job.over[0], []), latency_of(p)) for p in percentiles}
        ),
        rss_bytes=max(peaks, default=None),
        disturbed=sum(_is_disturbed(run, cpus) for run in runs),
        unrested=sum(not run.rested for run in runs),
    )


def latency_names(runs: Iterable[Run]) -> list[str]:
    """Name the percentiles that the runs have."""
    return list(
        {name: None for run in runs for name in run.measurement.facts.get("latency_us", {})}
    )


def _scaled(runs: Iterable[Run], value: Value, factor: float) -> Spread | None:
    found = spread_of(runs, value)
    return found.times(factor) if found else None


def _known(spreads: dict[str, Spread | None]) -> dict[str, Spread]:
    return {name: spread for name, spread in spreads.items() if spread is not None}


def _is_disturbed(run: Run, cpus: int) -> bool:
    measured = run.measurement
    return measured.others_s > DISTURBED_SHARE * measured.wall_s * cpus
