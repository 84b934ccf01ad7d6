"""What a run counted, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

RATIO_MAX = 1.3
"""Bytes sent to size, mean over the published uploads: to send again is to be the exception."""

RATIO_UPLOADS_MIN = 20
"""Of fewer uploads the mean says little: one that was struck five times is most of it."""


@dataclass
class Tally:
    """Counts of one run."""

    seed: int
    kinds: Counter[str] = field(default_factory=Counter)  # of rounds, by what was done
    uploads: Counter[str] = field(default_factory=Counter)  # published, aborted
    lanes: Counter[int] = field(default_factory=Counter)  # uploads by their lanes
    commands: int = 0
    resumes: int = 0
    published_bytes: int = 0
    ratios: list[float] = field(default_factory=list)
    seconds: float = 0.0
    broken: str = ""  # the promise that was, in one sentence

    @property
    def rounds(self) -> int:
        return self.kinds.total()

    @property
    def kills(self) -> int:
        """SIGKILLs: a round that kills both sides has two."""
        kinds = self.kinds
        return kinds["client"] + kinds["server"] + kinds["worker"] + 2 * kinds["both"]

    @property
    def too_much_was_sent(self) -> bool:
        return len(self.ratios) >= RATIO_UPLOADS_MIN and self.ratio_mean > RATIO_MAX

    @property
    def ratio_mean(self) -> float:
        return sum(self.ratios) / len(self.ratios) if self.ratios else 0.0

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "kinds": dict(self.kinds),
            "kills": self.kills,
            "uploads": dict(self.uploads),
            "lanes": {str(lanes): count for lanes, count in sorted(self.lanes.items())},
            "commands": self.commands,
            "resumes": self.resumes,
            "published_bytes": self.published_bytes,
            "sent_to_size_mean": round(self.ratio_mean, 4),
            "sent_to_size_worst": round(max(self.ratios, default=0.0), 4),
            "seconds": round(self.seconds, 1),
            "broken": self.broken,
        }

    def table(self) -> str:
        """Everything, for people."""
        kinds, uploads = self.kinds, self.uploads
        lanes = ", ".join(f"{count} of {lanes}" for lanes, count in sorted(self.lanes.items()))
        rows = [
            ("rounds", f"{self.rounds:,} in {self.seconds:.0f} s"),
            ("connections cut", f"{kinds['cut']:,}"),
            ("kill -9 of a client", f"{kinds['client']:,}"),
            ("kill -9 of the server", f"{kinds['server']:,}"),
            ("kill -9 of both", f"{kinds['both']:,}"),
            ("kill -9 of a worker", f"{kinds['worker']:,}"),
            ("all workers replaced", f"{kinds['replace']:,}"),
            ("SIGKILLs in all", f"{self.kills:,}"),
            ("uploads published", f"{uploads['published']:,} ({self.published_bytes >> 20:,} MiB)"),
            ("uploads aborted", f"{uploads['aborted']:,}"),
            ("uploads by lanes", lanes),
            ("commands run", f"{self.commands:,}"),
            ("RESUMEs answered", f"{self.resumes:,}"),
            ("sent to size, mean", f"{self.ratio_mean:.3f} (at most {RATIO_MAX})"),
            ("sent to size, worst", f"{max(self.ratios, default=0.0):.3f}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
