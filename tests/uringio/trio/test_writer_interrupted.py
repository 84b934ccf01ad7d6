"""A writer whose task is cancelled with a full slot, or whose ring breaks in a short write."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringio._ring.execute import execute
from uringio._trio import reactor as reactor_module
from uringio.exceptions import BrokenError, OperationError
from uringio.lowlevel import Opcode, Operation, run_ring
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

SLOT = 16 << 10
PASSES_MAX = 1000


class SlowToReserve(SimulatedRing):
    """Reserves no block until it may; a cancel comes in time."""

    held = False

    def _step(self, chain: Any) -> Any:
        token, operation = chain.tokens[chain.done], chain.operations[chain.done]
        if self.held and operation.opcode is Opcode.FALLOCATE and token not in self._cancelled:
            chain.delay = 1
            return []
        return super()._step(chain)

    def _hits(self, _token: int) -> bool:
        return True


@pytest.mark.parametrize("then", ["write", "flush", "commit"])
async def test_a_slot_that_was_full_when_its_write_was_cancelled_is_written_next(
    tmp_path: Path, then: str
) -> None:
    """What was accepted is accepted, whatever the task that accepted it came to."""
    raw = SlowToReserve(1)
    first, second = b"1" * SLOT, b"2" * 100 if then == "write" else b""
    async with run_ring(raw, 4, SLOT) as ring, ring.create(tmp_path / "file") as writer:
        raw.held = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.write, first)
                for _ in range(PASSES_MAX):
                    await trio.lowlevel.checkpoint()
                    if any(op.opcode is Opcode.FALLOCATE for ops in raw.begun() for op in ops):
                        break
                scope.cancel()
        raw.held = False
        assert scope.cancelled_caught
        assert (writer.accepted, writer.written) == (SLOT, 0)
        if then == "write":
            await writer.write(second)
        elif then == "flush":
            await writer.flush()
            assert writer.written == SLOT
        await writer.commit()
    assert (tmp_path / "file").read_bytes() == first + second


async def test_a_short_write_that_cannot_be_continued_is_a_failure(tmp_path: Path) -> None:
    """The ring broke in between: what is left has nobody to write it."""

    def do(operation: Operation) -> int:
        if operation.opcode not in {Opcode.WRITE, Opcode.WRITE_FIXED}:
            return execute(operation)
        reactor._failure = BrokenError("it broke (test)")
        return 4096

    async with run_ring(SimulatedRing(1, perform=do), 4, SLOT) as ring:
        reactor = ring.reactor
        with pytest.raises(OperationError, match="it broke") as info:
            async with ring.create(tmp_path / "file") as writer:
                await writer.write(b"x" * SLOT)
                await writer.flush()
        assert (info.value.operation, info.value.errno) == ("write", errno.EIO)
        assert (info.value.offset, info.value.length) == (4096, SLOT - 4096)
        reactor._failure = None
    assert list(tmp_path.iterdir()) == []
    reactor_module._leaked.clear()
