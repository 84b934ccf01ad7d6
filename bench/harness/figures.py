"""From runs to figures: medians with their spread, and ratios of what ran side by side.

A ratio is taken within a round, of two measurements a few seconds apart, and only then is the
median taken over the rounds. On a machine that is faster today than yesterday, or this minute than
the last, such a ratio still holds when a ratio of two medians does not.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from bench.harness.contenders import REFERENCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.harness.results import Result, Run

MIB = 1 << 20
GIB = 1 << 30

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


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of one contender.

    `rate` and `wall_rate` in MiB/s, by the time that counts and by the time around all of it;
    `cpu` and `kworkers` in CPU seconds per GiB, `client_cpu` too where there is a client;
    `over` the ratios of rates over the references; `rss_bytes` the highest peak.
    `disturbed` and `unrested` count runs.
    """

    rate: Spread
    wall_rate: Spread
    cpu: Spread
    kworkers: Spread | None
    client_cpu: Spread | None
    over: dict[str, Spread]
    rss_bytes: int | None
    disturbed: int
    unrested: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def figures_of(result: Result) -> dict[str, Figures]:
    """Compute the figures of every contender that has runs, in the order they were asked for."""
    rates = {
        name: {run.round: _rate(result, run) for run in result.runs_of(name)}
        for name in result.settings.contenders
    }
    return {name: _figures(result, name, rates) for name in rates if rates[name]}


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ratio round by round; None when the two never ran in the same round."""
    ratios = [rate / theirs[number] for number, rate in ours.items() if theirs.get(number)]
    return Spread.of(ratios) if ratios else None


def _figures(result: Result, name: str, rates: Mapping[str, Mapping[int, float]]) -> Figures:
    runs = result.runs_of(name)
    gib = result.settings.size_bytes / GIB
    measured = [run.measurement for run in runs]
    kworkers = [m.kworkers_s / gib for m in measured if m.kworkers_s is not None]
    clients = [m.facts["client_cpu_s"] / gib for m in measured if "client_cpu_s" in m.facts]
    peaks = [m.rss_bytes for m in measured if m.rss_bytes is not None]
    ratios = {other: paired_ratios(rates[name], rates.get(other, {})) for other in REFERENCES}
    cpus = int(result.environment["cpu_count"])
    return Figures(
        rate=Spread.of(rates[name].values()),
        wall_rate=Spread.of(result.settings.size_bytes / MIB / m.wall_s for m in measured),
        cpu=Spread.of((m.user_s + m.system_s) / gib for m in measured),
        kworkers=Spread.of(kworkers) if kworkers else None,
        client_cpu=Spread.of(clients) if clients else None,
        over={other: ratio for other, ratio in ratios.items() if ratio is not None},
        rss_bytes=max(peaks, default=None),
        disturbed=sum(m.others_s > DISTURBED_SHARE * m.wall_s * cpus for m in measured),
        unrested=sum(not run.rested for run in runs),
    )


def _rate(result: Result, run: Run) -> float:
    return result.settings.size_bytes / MIB / run.measurement.seconds
