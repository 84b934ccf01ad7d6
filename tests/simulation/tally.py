"""What runs counted, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one seed, or of many."""

    seeds: int = 0
    operations: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another run's counts."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.counts += other.counts

    def table(self) -> str:
        """Everything, for people."""
        rows = [("seeds", self.seeds), ("operations", self.operations)]
        rows += sorted(self.counts.items())
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {count:>12,}" for name, count in rows)
