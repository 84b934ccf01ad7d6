"""Registered memory that is no part of the pool."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from uringio._ring.pool import MEMORIES_MAX
from uringio.lowlevel import BufferPool, RingLike, ThreadRing, operations
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.uringio.conftest import Finish

BYTES = 16 << 10


@pytest.fixture
def memory() -> tuple[mmap.mmap, int]:
    """Some memory, and its address."""
    mapping = mmap.mmap(-1, BYTES)
    return mapping, ctypes.addressof(ctypes.c_char.from_buffer(mapping))


@pytest.mark.parametrize("kind", ["io_uring", "simulated-0"])
def test_memory_beside_the_pool_is_written_from_by_its_index(
    new_ring: Callable[..., RingLike],
    finish: Finish,
    descriptor: int,
    memory: tuple[mmap.mmap, int],
    kind: str,
) -> None:
    ring = new_ring(kind)
    pool = BufferPool(2, 4096)
    ring.register(pool)
    mapping, address = memory
    index = ring.register_memory(address, BYTES)
    assert index not in {slot.buffer_index for slot in pool.slots} and index >= 0
    mapping[4096:8192] = b"m" * 4096
    view = memoryview(mapping)[4096:8192]
    write = operations.write(descriptor, view, 0, 4096, buffer_index=index)
    token = ring.prepare(write)
    assert finish(ring) == {token: 4096}
    assert os.pread(descriptor, 8192, 0) == b"m" * 4096
    ring.unregister_memory(index)
    token = ring.prepare(write)
    assert finish(ring) == {token: -errno.EFAULT}
    assert ring.register_memory(address, BYTES) >= 0
    ring.close()
    pool.close()


def test_there_is_an_end_to_it(
    new_ring: Callable[..., RingLike], memory: tuple[mmap.mmap, int]
) -> None:
    ring = new_ring("io_uring")
    pool = BufferPool(2, 4096)
    ring.register(pool)
    _, address = memory
    indices = {ring.register_memory(address, 4096) for _ in range(MEMORIES_MAX)}
    assert len(indices) == MEMORIES_MAX and min(indices) >= 0
    assert ring.register_memory(address, 4096) == -errno.ENOMEM
    ring.unregister_memory(min(indices))
    assert ring.register_memory(address, 4096) == min(indices)
    ring.close()
    pool.close()


def test_memory_that_is_none_is_refused_and_costs_no_entry(
    new_ring: Callable[..., RingLike], memory: tuple[mmap.mmap, int]
) -> None:
    ring = new_ring("io_uring")
    pool = BufferPool(2, 4096)
    ring.register(pool)
    for _ in range(2 * MEMORIES_MAX):
        assert ring.register_memory(4096, BYTES) == -errno.EFAULT
    assert ring.register_memory(memory[1], BYTES) >= 0
    ring.close()
    pool.close()


def test_a_kernel_without_a_sparse_table_registers_none(
    no_sparse_tables: None,
    new_ring: Callable[..., RingLike],
    memory: tuple[mmap.mmap, int],
) -> None:
    ring = new_ring("io_uring")
    pool = BufferPool(2, 4096)
    ring.register(pool)
    assert ring.register_memory(memory[1], BYTES) == -errno.EOPNOTSUPP
    ring.close()
    pool.close()


def test_threads_have_nothing_to_register_with(memory: tuple[mmap.mmap, int]) -> None:
    ring = ThreadRing()
    assert ring.register_memory(memory[1], BYTES) == -errno.EOPNOTSUPP
    ring.close()


def test_a_simulated_ring_counts_no_memory_among_its_slots(memory: tuple[mmap.mmap, int]) -> None:
    ring = SimulatedRing()
    pool = BufferPool(2, 4096)
    ring.register(pool)
    ring.register_memory(memory[1], BYTES)
    assert ring.features.registered_slots == 2
    ring.close()
    pool.close()
