"""A chain of one file: operations that happen one after another, in few submissions.

For who needs order: a record and its fsync before the next, as a write-ahead log does. The kernel
starts a member when the one before has succeeded in full. What stands behind an fsync is submitted
when that has succeeded, for a failed fsync does not stop what is linked to it (publish.py); writes
that are `durable` themselves need none, and go in one submission. So do those that can carry the
fsync behind them (carried.py), as records of several logs do.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from uringio._ring import operations
from uringio._ring.operations import LENGTH_MAX
from uringio._trio.carried import carry_fsyncs
from uringio._trio.modes import promise_flags
from uringio._trio.publish import Step, finish_steps, linkable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from uringio._ring.operations import Operation
    from uringio._trio.access import FileAccess


CHAIN_MAX = 64
"""Members of a chain: it has to fit the queue whole, and an error loses what is behind it."""


class Chain:
    """Collects operations of one file in an `async with` block, and runs them at its end.

    Made by `UringFile.chain`, which says what holds.
    """

    __slots__ = ("_access", "_call", "_ended", "_operations")

    def __init__(self, access: FileAccess, call: AbstractContextManager[None]) -> None:
        self._access = access
        self._call = call
        self._operations: list[Operation] = []
        self._ended = False

    async def __aenter__(self) -> Self:
        """Nothing is submitted before the block ends."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Run the members in order, unless the block raised.

        Raises the error of the first that failed: none behind it ran. Once submitted the chain is
        not cancelled in its middle, so that its order is kept to the end.
        """
        if self._ended:
            raise RuntimeError("a chain runs once: make another with file.chain()")
        self._ended = True
        if kind is not None:
            return
        access, operations = self._access, self._operations
        with self._call:
            await trio.lowlevel.checkpoint_if_cancelled()
            if not operations:
                return
            if access.carries_fsyncs:
                operations = carry_fsyncs(operations)
            linked = operations[: linkable(operations)]
            results = await access.reactor.perform_chain(linked, to_the_end=True)
            if results != [operation.length for operation in operations]:
                steps = [Step(operation, access.file.path) for operation in operations]
                with trio.CancelScope(shield=True):
                    await finish_steps(access.reactor, steps, results)
        for operation in operations:
            if operation.data is not None:
                access.count(operation.fd, operation.flags, operation.length)

    def pwrite(
        self, data: Buffer, offset: int, *, durable: bool = False, atomic: bool = False
    ) -> None:
        """Add a write of all of `data` at `offset`. The memory must not change before the end.

        On a direct file, offset, length and memory must be aligned: copying it would be hidden
        work, and through the page cache it would not be ordered with the others. `durable` and
        `atomic` are as in `UringFile.pwrite`: a durable write needs no fsync behind it.
        """
        access, view, offset = self._access, memoryview(data).cast("B"), operator.index(offset)
        promises = promise_flags(durable=durable, atomic=atomic) if durable or atomic else 0
        operation = access.straight(view, offset, promises)
        if operation is not None:
            self._add(operation)
            return
        file = access.file
        if offset >= 0 and not access.is_straight(view, offset):
            raise ValueError(
                f"{file.path} is direct: offset and length must be multiples of "
                f"{file.block_bytes}, memory of {file.memory_bytes}"
            )
        access.check(view, offset, promises)
        flags = access.straight_flags(len(view), promises)
        for start in range(0, len(view), LENGTH_MAX):
            piece = view[start : start + LENGTH_MAX]
            self._add(operations.write(file.fd, piece, offset + start, len(piece), flags=flags))

    def fsync(self, *, data_only: bool = False) -> None:
        """Add an fsync: what stands before it in this chain is durable before what stands behind.

        It is also durable when the block ends without an error; so is, as with `UringFile.fsync`,
        every write of this object that was awaited before. Where the write in front of it is all
        there is to make durable, it may carry it (RWF_DSYNC); then no fsync is seen by itself.
        """
        self._add(operations.fsync(self._access.file.fd, data_only=data_only))

    def _add(self, operation: Operation) -> None:
        if self._ended:
            raise RuntimeError("the chain has run: nothing can be added behind its end")
        if len(self._operations) == CHAIN_MAX:
            raise ValueError(f"a chain has {CHAIN_MAX} operations at the most")
        self._operations.append(operation)
