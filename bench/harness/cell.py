"""A cell: what is written, in which blocks and how many at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.harness.units import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

Pattern = Literal["fresh", "overwrite", "random", "log"]
"""`fresh` is a new file from its start to its end; the others write into a file that is there and
whose blocks were all written before: from start to end, each block once in random order, or from
start to end with each block durable before the next."""

SEED = 20_261_121
"""Any number: the same order in every process."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A file of `size_bytes` in blocks of `block_bytes`, up to `depth` writes in flight.

    `timed` says that the latency of each write is kept.
    """

    pattern: Pattern
    size_bytes: int
    block_bytes: int
    depth: int
    timed: bool = False

    @property
    def name(self) -> str:
        """Tell it from the other cells of its job."""
        return f"{size_text(self.block_bytes)} QD{self.depth}"

    @property
    def blocks(self) -> int:
        """How many writes it takes."""
        return self.size_bytes // self.block_bytes

    def numbers(self) -> Iterator[int]:
        """Give the blocks' numbers, each once, in the order in which they are to be written."""
        if self.pattern != "random":
            return iter(range(self.blocks))
        shuffled = list(range(self.blocks))
        random.Random(SEED).shuffle(shuffled)  # noqa: S311  # not a secret
        return iter(shuffled)
