"""What is counted over the whole server: connections, unfinished uploads, bytes of the spool.

One process counts in memory of its own. Several share a mapping with a row for each of them, and a
lock for who looks at a sum before adding to it: so a limit holds for the server, whoever serves.

Each kind has two cells in a row. What is *kept* stands in the catalog as well, and stays there when
the process is killed; what is not (a connection, an upload that is not recorded yet, bytes that no
checkpoint has recorded) ends with the process. So the row of a dead process is settled without
asking anybody: its kept cells go to the first row, the others go nowhere.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW_CELLS = 8
"""64-bit cells of a row: one cache line."""

HOUSE_ROW = 0
"""The row of what was found at the start, and of those who are gone."""

SUM_MAX = 1 << 61
"""More bytes than any disk has, and room in a cell for what one row adds and another takes away.
A client may declare 2^63 - 1 bytes, and another one too."""

ACCEPTING_CELL = 6
"""After the two cells of each kind."""

LOCK_OFFSET = 0
"""The byte of the mapping's file that is locked for a sum."""


class Kind(enum.IntEnum):
    """What is counted; the value is its first cell, the kept one comes after it."""

    CONNECTIONS = 0
    UPLOADS = 2
    SPOOL_BYTES = 4


class Accounts:
    """One process's row, and the sums over all."""

    def __init__(self, fd: int | None = None, row: int = HOUSE_ROW) -> None:
        """Count alone, or in the row of a mapping that `shared_memory` has made."""
        self._fd = fd
        if fd is None:
            self._cells = memoryview(bytearray(8 * ROW_CELLS)).cast("q")
        else:
            self._cells = memoryview(mmap.mmap(fd, os.fstat(fd).st_size)).cast("q")
        self.row = row
        self._begin = row * ROW_CELLS

    def total(self, kind: Kind) -> int:
        """Return the sum over all processes."""
        return sum(self._cells[kind::ROW_CELLS]) + sum(self._cells[kind + 1 :: ROW_CELLS])

    def take(self, kind: Kind, count: int, most: int | None) -> bool:
        """Add to what is not kept, unless the sum would be more than `most`, or than SUM_MAX."""
        most = SUM_MAX if most is None else min(most, SUM_MAX)
        with self._locked():
            if self.total(kind) + count > most:
                return False
            self._cells[self._begin + kind] += count
        return True

    def give_back(self, kind: Kind, count: int) -> None:
        """Take from what is not kept."""
        self._cells[self._begin + kind] -= count

    def keep(self, kind: Kind, count: int) -> None:
        """Make kept what was not: it stands in the catalog now."""
        with self._locked():
            self._cells[self._begin + kind] -= count
            self._cells[self._begin + kind + 1] += count

    def found(self, kind: Kind, count: int) -> None:
        """Add what the catalog has from before."""
        self._cells[self._begin + kind + 1] += count

    def drop(self, kind: Kind, count: int) -> None:
        """Take from what is kept: the catalog has it no more."""
        self._cells[self._begin + kind + 1] -= count

    def bury(self, row: int) -> None:
        """Settle the row of a process that is dead."""
        begin = row * ROW_CELLS
        with self._locked():
            for kind in Kind:
                self._cells[self._begin + kind + 1] += self._cells[begin + kind + 1]
            for cell in range(begin, begin + ROW_CELLS):
                self._cells[cell] = 0

    def accept(self, *, accepting: bool) -> None:
        """Say whether this process takes new connections."""
        self._cells[self._begin + ACCEPTING_CELL] = int(accepting)

    @property
    def has_more_than_others(self) -> bool:
        """Whether another process takes connections, and has fewer: a guess, for it may change."""
        cells = self._cells
        mine = cells[self._begin + Kind.CONNECTIONS]
        return any(
            cells[begin + ACCEPTING_CELL] and cells[begin + Kind.CONNECTIONS] < mine
            for begin in range(0, len(cells), ROW_CELLS)
            if begin != self._begin
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out for a few instructions; a killed one's lock ends with it."""
        if self._fd is None:
            yield
            return
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, LOCK_OFFSET)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, LOCK_OFFSET)


def shared_memory(rows: int) -> int:
    """Return a descriptor of memory for the rows of several processes; the caller closes it."""
    fd = os.memfd_create("uringd accounts", os.MFD_CLOEXEC)
    os.ftruncate(fd, rows * ROW_CELLS * 8)
    return fd
