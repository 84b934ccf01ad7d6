"""What runs counted, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one seed, or of many: `operations` of rings, `requests` and chunks of clients."""

    seeds: int = 0
    operations: int = 0
    requests: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> int:
        """Operations and transactions that failed or were short on purpose."""
        return self._of("fault: ")

    @property
    def restarts(self) -> int:
        """Lives of a daemon that were ended: by a kill, by power, by asking."""
        return self._of("daemon: ")

    def add(self, other: Tally) -> None:
        """Add another run's counts."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.requests += other.requests
        self.counts += other.counts

    def table(self) -> str:
        """Everything, for people."""
        rows = [
            ("seeds", self.seeds),
            ("operations of rings", self.operations),
            ("requests and chunks of clients", self.requests),
            ("faults", self.faults),
            ("restarts", self.restarts),
            *sorted(self.counts.items()),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {count:>12,}" for name, count in rows)

    def _of(self, kind: str) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(kind))
