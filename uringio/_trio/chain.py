"""A chain of one file: operations that happen one after another, in one submission.

For who needs order: a record and its fsync before the next, as a write-ahead log does. The kernel
starts a member when the one before has succeeded in full, so the log waits once for all of them
instead of once for each.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Protocol

import trio

from uringio._ring import operations
from uringio._ring.operations import LENGTH_MAX
from uringio._trio.publish import Step, run_steps

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from uringio._ring.operations import Operation
    from uringio._trio.reactor import Reactor

    class FlagsOf(Protocol):
        """Checks a write, and tells its flags."""

        def __call__(
            self, view: memoryview, offset: int, *, durable: bool, atomic: bool
        ) -> int: ...


CHAIN_MAX = 64
"""Members of a chain: it has to fit the queue whole, and an error loses what is behind it."""


class Chain:
    """Collects operations; made by `UringFile.chain`, which runs them at the end of its block."""

    def __init__(self, path: str, fd: int, flags_of: FlagsOf) -> None:
        self._path = path
        self._fd = fd
        self._flags_of = flags_of
        self.steps: list[Step] = []

    def pwrite(
        self, data: Buffer, offset: int, *, durable: bool = False, atomic: bool = False
    ) -> None:
        """Add a write of all of `data` at `offset`. The memory must not change before the end.

        On a direct file, offset, length and memory must be aligned: copying it would be hidden
        work, and through the page cache it would not be ordered with the others. `durable` and
        `atomic` are as in `UringFile.pwrite`: a durable write needs no fsync behind it.
        """
        view, offset = memoryview(data).cast("B"), operator.index(offset)
        flags = self._flags_of(view, offset, durable=durable, atomic=atomic)
        for start in range(0, len(view), LENGTH_MAX):
            piece = view[start : start + LENGTH_MAX]
            operation = operations.write(self._fd, piece, offset + start, len(piece), flags=flags)
            self._add(operation)

    def fsync(self, *, data_only: bool = False) -> None:
        """Add an fsync: what stands before it in this chain is durable before what stands behind.

        It is also durable when the block ends without an error.
        """
        self._add(operations.fsync(self._fd, data_only=data_only))

    def _add(self, operation: Operation) -> None:
        if len(self.steps) == CHAIN_MAX:
            raise ValueError(f"a chain has {CHAIN_MAX} operations at the most")
        self.steps.append(Step(operation, self._path))


async def run_chain(reactor: Reactor, chain: Chain) -> None:
    """Run the members in order. Raises the error of the first that failed: none behind it ran.

    Once submitted it is not cancelled in the middle, so that its order is kept to the end.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(shield=True):
        await run_steps(reactor, chain.steps)
