"""A cell: what is written, in which blocks and how many at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from bench.harness.units import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

Pattern = Literal["fresh", "overwrite", "random", "log", "uploads"]
"""`fresh` is a new file from its start to its end; `overwrite`, `random` and `log` write into a
file that is there and whose blocks were all written before: from start to end, each block once in
random order, or from start to end with each block durable before the next. `uploads` are many new
files, sent to a server: a block is a file, and the depth is the number of connections."""

SMALL_FILE_BYTES_MAX = 64 << 10
"""Of an upload. All of them can stay on the disk to the end: they are some 10 GiB."""

SEED = 20_261_121
"""Any number: the same order in every process."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A file of `size_bytes` in blocks of `block_bytes`, up to `depth` writes in flight.

    `timed` says that the latency of each write is kept; `without` names contenders of the job that
    are left out of this cell.
    """

    pattern: Pattern
    size_bytes: int
    block_bytes: int
    depth: int
    timed: bool = False
    without: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Make it from its fields as JSON has them."""
        return cls(**(fields | {"without": tuple(fields.get("without", ()))}))

    @property
    def name(self) -> str:
        """Tell it from the other cells of its job."""
        kind = "x" if self.pattern == "uploads" else "QD"
        return f"{size_text(self.block_bytes)} {kind}{self.depth}"

    @property
    def blocks(self) -> int:
        """How many writes it takes."""
        return self.size_bytes // self.block_bytes

    @property
    def files_are_small(self) -> bool:
        """Whether it makes so many files that their number is what they cost."""
        return self.pattern == "uploads" and self.block_bytes <= SMALL_FILE_BYTES_MAX

    def of_size(self, size_bytes: int) -> Cell:
        """Take it with another size in all; an upload is no bigger than all of them."""
        block = self.block_bytes
        if self.pattern == "uploads":
            block = min(block, size_bytes)
        return replace(self, size_bytes=size_bytes, block_bytes=block)

    def numbers(self) -> Iterator[int]:
        """Give the blocks' numbers, each once, in the order in which they are to be written."""
        if self.pattern != "random":
            return iter(range(self.blocks))
        shuffled = list(range(self.blocks))
        random.Random(SEED).shuffle(shuffled)  # noqa: S311  # not a secret
        return iter(shuffled)
