"""Slots registered and unregistered while operations are in flight: what the kernel does."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from uringio.lowlevel import (
    BufferPool,
    RingLike,
    UringRing,
    operations,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import RunPython
    from tests.uringio.conftest import Finish


def test_registering_more_slots_goes_on_beside_operations_in_flight(
    uring: UringRing, finish: Finish, descriptor: int
) -> None:
    """IORING_REGISTER_BUFFERS_UPDATE waits for nothing: a read of a pipe is in flight all along."""
    pool = BufferPool(2, 4096, 4)
    uring.register(pool)
    reader, writer = os.pipe()
    token = uring.prepare(operations.read(reader, pool.slots[0].memory, 0, 1, buffer_index=0))
    uring.submit()
    for round_number in range(3):
        increment = pool.map_increment()
        assert increment is not None
        uring.register_increment(increment)
        assert uring.features.registered_slots == 4
        slot = increment.slots[1]
        slot.memory[:] = bytes([round_number]) * 4096
        write = operations.write(descriptor, slot.memory, 0, 4096, buffer_index=slot.buffer_index)
        done = uring.prepare(write)
        uring.submit()
        results: dict[int, int] = {}
        while done not in results:
            results.update(uring.reap())
        assert results == {done: 4096}
        assert os.pread(descriptor, 4096, 0) == bytes([round_number]) * 4096
        uring.unregister_increment(increment)
        assert uring.features.registered_slots == 2
        refused = uring.prepare(operations.write(descriptor, slot.memory, 0, 1, buffer_index=3))
        uring.submit()
        while refused not in results:
            results.update(uring.reap())
        assert results[refused] == -errno.EFAULT, "the entry of the table is empty"
        increment.close()
    os.write(writer, b"x")
    assert finish(uring) == {token: 1}
    for fd in (reader, writer):
        os.close(fd)
    uring.close()
    pool.close()


def test_a_kernel_without_a_sparse_table_grows_unregistered_and_says_so(
    no_sparse_tables: None,
    new_ring: Callable[..., RingLike],
    finish: Finish,
    descriptor: int,
) -> None:
    ring = new_ring("io_uring")
    pool = BufferPool(2, 4096, 4)
    ring.register(pool)
    assert ring.features.registered_slots == 2
    assert any("before 5.19" in note for note in ring.features.notes)
    increment = pool.map_increment()
    assert increment is not None
    ring.register_increment(increment)
    assert [slot.buffer_index for slot in increment.slots] == [-1, -1]
    for slot in (pool.slots[1], increment.slots[0]):
        slot.memory[:] = b"s" * 4096
        index = slot.buffer_index
        token = ring.prepare(operations.write(descriptor, slot.memory, 0, 4096, buffer_index=index))
        assert finish(ring) == {token: 4096}
    ring.unregister_increment(increment)
    assert ring.features.registered_slots == 2
    ring.close()
    increment.close()
    pool.close()


MEMLOCK = """
import resource, trio, uringio
from uringio._trio.growth import SHRINK_AFTER_S
limit = 4 << 20
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))

async def main():
    async with uringio.open_ring(2, 1 << 20, slots_max=10, backend="io_uring") as ring:
        assert (ring.features.registered_slots, ring.features.notes) == (2, []), ring.features
        held = [await ring.slots.acquire() for _ in range(10)]
        registered = sum(slot.buffer_index >= 0 for slot in held)
        assert 2 <= registered < 10, registered
        features = ring.features
        assert features.registered_slots == ring.statistics().registered_slots == registered
        [note] = features.notes
        assert f"{10 - registered} more, of 8 slots are not registered" in note, note
        assert "RLIMIT_MEMLOCK" in note
        for slot in held:
            slot.memory[:] = bytes([slot.index]) * len(slot.memory)
            ring.slots.release(slot)
        async with ring.create("file", overwrite=True) as writer:
            for number in range(20):
                async with writer.slot() as slot:
                    slot.view[:] = bytes([number]) * len(slot.view)
                    slot.length = len(slot.view)
            await writer.commit()
        await trio.sleep(SHRINK_AFTER_S * 3)
        assert (features.slots, features.registered_slots) == (2, 2)
    with open("file", "rb") as file:
        for number in range(20):
            assert file.read(1 << 20) == bytes([number]) * (1 << 20)

from trio.testing import MockClock
trio.run(main, clock=MockClock(autojump_threshold=0))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping a capability for a child needs root")
def test_what_rlimit_memlock_refuses_while_growing_is_used_unregistered_and_said(
    run_python: RunPython, tmp_path: Path, uring: UringRing
) -> None:
    tmp_path.chmod(0o777)
    nobody_else = f"--reuid={57_000 + os.getpid() % 4000}"
    reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    prefix = ("setpriv", nobody_else, "--clear-groups", "--bounding-set=-ipc_lock", *reading)
    run_python(MEMLOCK, prefix=prefix)
