"""A real kernel that keeps an operation past the ring's close: its memory is still there."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from tests.uringio.conftest import STUCK_MS
from uringio._trio import reactor as module
from uringio.lowlevel import operations, run_ring

if TYPE_CHECKING:
    import trio.testing

    from uringio.lowlevel import RingLike


async def test_what_a_late_read_brings_goes_into_memory_that_was_not_freed(
    uring: RingLike, autojump_clock: trio.testing.MockClock
) -> None:
    """A pipe with nothing in it: the kernel waits for it, and writes the slot when it comes."""
    reader, writer = os.pipe()
    heard: list[int] = []
    with pytest.warns(ResourceWarning, match="did not give 1 operations back"):
        async with run_ring(uring, 2, 4096) as ring:
            slot = ring.slots.acquire_nowait()
            assert slot is not None
            ring.reactor.start(operations.read(reader, slot.memory, 0, 4096), heard.append)
    assert module._leaked[-2:] == [uring, ring.slots.pool]
    os.write(writer, b"late")
    poll = select.poll()
    poll.register(uring.wakeup_fd, select.POLLIN)
    assert poll.poll(STUCK_MS)
    assert [result for _, result in uring.reap()] == [4]
    assert bytes(slot.memory[:4]) == b"late"
    assert heard == [], "its task is gone"
    module._leaked.clear()
    ring.slots.pool.close()
    for fd in (reader, writer):
        os.close(fd)
