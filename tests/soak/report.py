"""What a soak found: a table, JSON, and a plot over time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.soak.slope import HOUR_S, SLOPE_MAX_BYTES_H, grows_too_much, slope_per_s

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.watch import Sample

MIB = 1 << 20


@dataclass
class Report:
    """One run. `before` and `after` are the server at rest, behind the warm-up and at the end."""

    seed: int
    clients: int
    seconds: float = 0.0
    deeds: dict[str, int] = field(default_factory=dict)
    published_bytes: int = 0
    before: Sample | None = None
    after: Sample | None = None
    samples: list[Sample] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def measured_s(self) -> float:
        """How long the samples span."""
        return self.samples[-1].seconds - self.samples[0].seconds if self.samples else 0.0

    @property
    def rss_bytes_per_s(self) -> float:
        """The slope of resident memory under load."""
        times = [sample.seconds for sample in self.samples]
        return slope_per_s(times, [sample.rss_bytes for sample in self.samples])

    def judge(self) -> None:
        """Add a sentence to `broken` for each promise that was."""
        if grows_too_much(self.rss_bytes_per_s, self.measured_s):
            mib_h = self.rss_bytes_per_s * HOUR_S / MIB
            limit = SLOPE_MAX_BYTES_H / MIB
            self.broken.append(
                f"memory grew by {mib_h:.2f} MiB/h over {self.measured_s:.0f} s, "
                f"at most {limit:.0f} MiB/h are allowed"
            )
        if self.before is None or self.after is None:
            return
        for what in ("descriptors", "pinned_bytes"):
            then, now = getattr(self.before, what), getattr(self.after, what)
            if now > then:
                text = f"at rest the server had {then:,} {what} before the load, and {now:,} after"
                self.broken.append(text.replace("_", " "))
        if self.after.threads > self.before.threads:
            text = f"{self.after.threads} threads at rest, {self.before.threads} before the load"
            self.broken.append(text)

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self) | {
            "measured_s": round(self.measured_s, 1),
            "rss_mib_per_h": round(self.rss_bytes_per_s * HOUR_S / MIB, 3),
        }

    def table(self) -> str:
        """Everything that matters, for people."""
        deeds = ", ".join(f"{count:,} {name}" for name, count in sorted(self.deeds.items()))
        rows = [
            ("seed, clients", f"{self.seed}, {self.clients}"),
            ("time", f"{self.seconds:.0f} s, of which {self.measured_s:.0f} s were measured"),
            ("done", deeds),
            ("published, read back", f"{self.published_bytes / MIB:,.0f} MiB"),
            ("RSS slope", f"{self.rss_bytes_per_s * HOUR_S / MIB:+.2f} MiB/h"),
        ]
        if self.samples:
            rows += [
                ("RSS under load", _span([s.rss_bytes / MIB for s in self.samples], "MiB")),
                ("pinned", _span([s.pinned_bytes / MIB for s in self.samples], "MiB")),
                ("descriptors", _span([s.descriptors for s in self.samples])),
                ("threads", _span([s.threads for s in self.samples])),
            ]
        if self.before is not None and self.after is not None:
            for what in ("descriptors", "threads"):
                then, now = getattr(self.before, what), getattr(self.after, what)
                rows.append((f"{what} at rest", f"{then} before, {now} after"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def draw(report: Report, path: Path) -> None:
    """Plot what the server held over time. Raises CannotRunError without matplotlib."""
    from bench.harness.canvas import FAINT, OURS, Canvas  # noqa: PLC0415  # of the bench extra

    canvas = Canvas(f"uringd under a mixed load for {report.measured_s / 60:.0f} min", 10.5, 6.0)
    minutes = [sample.seconds / 60 for sample in report.samples]
    shown: tuple[tuple[str, list[float]], ...] = (
        ("resident memory, MiB", [s.rss_bytes / MIB for s in report.samples]),
        ("pinned memory, MiB", [s.pinned_bytes / MIB for s in report.samples]),
        ("descriptors", [float(s.descriptors) for s in report.samples]),
        ("threads", [float(s.threads) for s in report.samples]),
    )
    for axes, (title, values) in zip(canvas.panels(2, 2), shown, strict=True):
        axes.plot(minutes, values, color=OURS, linewidth=0.8)
        axes.set_title(title)
        axes.set_ylim(0, max(values, default=1) * 1.1 or 1)
        axes.set_xlabel("minutes")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
    canvas.save(path)


def _span(values: list[float] | list[int], unit: str = "") -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f} to {high:,.0f} {unit}".strip()


def leaves(exc: BaseException) -> list[BaseException]:
    """List the exceptions of a group, of all its groups."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in leaves(each)]
    return [exc]
