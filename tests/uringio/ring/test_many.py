"""Many writes as arrays: every ring keeps them going by itself, and tells the result of each."""

from __future__ import annotations

import errno
import mmap
import os
import random
from array import array
from typing import TYPE_CHECKING

import pytest

from uringio._ring import many as module
from uringio._ring.beside import PART
from uringio._ring.many import (
    IN_FLIGHT_MAX,
    MANY_MAX,
    NOT_BEGUN,
    Many,
    addresses_of,
    all_multiples,
)
from uringio._ring.pool import INCREMENT_SLOTS
from uringio.lowlevel import (
    BufferPool,
    Increment,
    Opcode,
    Operation,
    RingLike,
    UringRing,
    operations,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.uringio.conftest import Finish
    from uringio._ring.ring import Completion

COUNT = 3 * IN_FLIGHT_MAX + 7


def many_of(fd: int, views: Sequence[memoryview], offsets: Sequence[int], flags: int = 0) -> Many:
    lengths = array("i", map(len, views))
    return Many(fd, flags, views, addresses_of(views), lengths, array("q", offsets))


def pieces(count: int, length: int = 100) -> list[memoryview]:
    memory = memoryview(bytearray(random.Random(1).randbytes(count * length)))
    return [memory[i * length : (i + 1) * length] for i in range(count)]


def test_all_are_written_and_one_completion_says_so(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    views = pieces(COUNT)
    offsets = [i * 100 for i in range(COUNT)]
    random.Random(2).shuffle(offsets)
    many = many_of(descriptor, views, offsets)
    token = ring.prepare_many(many)
    assert ring.in_flight >= 1
    assert ring.prepared >= 1
    assert finish(ring) == {token: 0}
    assert many.results == many.lengths
    for view, offset in zip(views, offsets, strict=True):
        assert os.pread(descriptor, 100, offset) == view


def test_they_run_beside_others_and_beside_one_another(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    views = pieces(COUNT)
    thirds = [range(n, COUNT, 3) for n in range(3)]
    batches = [many_of(descriptor, [views[i] for i in t], [i * 100 for i in t]) for t in thirds]
    expected = {ring.prepare_many(many): 0 for many in batches}
    expected[ring.prepare(Operation(Opcode.NOP))] = 0
    chain = [operations.write(descriptor, b"end", COUNT * 100, 3), operations.fsync(descriptor)]
    expected.update(zip(ring.prepare_chain(chain), (3, 0), strict=True))
    assert finish(ring) == expected
    assert os.pread(descriptor, COUNT * 200, 0) == b"".join(views) + b"end"


def test_as_many_as_may_run_at_a_time_do(ring: RingLike, finish: Finish, descriptor: int) -> None:
    views = pieces(MANY_MAX * 20)
    tokens = set()
    for n in range(MANY_MAX):
        numbers = range(n * 20, n * 20 + 20)
        own = [views[i] for i in numbers]
        tokens.add(ring.prepare_many(many_of(descriptor, own, [i * 100 for i in numbers])))
    assert set(finish(ring)) == tokens
    assert os.pread(descriptor, len(views) * 100, 0) == b"".join(views)
    again = many_of(descriptor, views[:1], [0])
    assert finish(ring) == {}
    token = ring.prepare_many(again)
    assert finish(ring) == {token: 0}


def test_after_an_error_no_more_are_begun_and_each_result_says_how_it_went(
    ring: RingLike, finish: Finish
) -> None:
    reading = os.open("/dev/null", os.O_RDONLY)
    many = many_of(reading, pieces(COUNT), range(COUNT))
    token = ring.prepare_many(many)
    assert finish(ring) == {token: 0}
    os.close(reading)
    assert -errno.EBADF in many.results
    assert set(many.results) == {-errno.EBADF, NOT_BEGUN}
    assert many.results[-1] == NOT_BEGUN


def test_a_cancel_begins_no_more_and_the_token_completes(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    many = many_of(descriptor, pieces(COUNT), [i * 100 for i in range(COUNT)])
    token = ring.prepare_many(many)
    ring.cancel(token)
    ring.cancel(token)
    assert finish(ring)[token] == 0
    assert set(many.results) <= {100, NOT_BEGUN}
    assert NOT_BEGUN in many.results
    ring.cancel(token)  # too late: hits nothing
    again = many_of(descriptor, pieces(3), [0, 100, 200])
    token = ring.prepare_many(again)
    assert finish(ring) == {token: 0}
    assert again.results == again.lengths


def test_a_cancel_in_their_midst_ends_those_in_flight(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    many = many_of(descriptor, pieces(COUNT), [i * 100 for i in range(COUNT)])
    token = ring.prepare_many(many)
    ring.submit()
    ring.cancel(token)
    assert finish(ring)[token] == 0
    assert set(many.results) <= {100, NOT_BEGUN, -errno.EINTR}


@pytest.mark.parametrize("kind", ["io_uring", "threads", "simulated-1"])
def test_a_short_queue_only_takes_longer(
    new_ring: Callable[..., RingLike], finish: Finish, descriptor: int, kind: str
) -> None:
    ring = new_ring(kind, 8)
    many = many_of(descriptor, pieces(100), [i * 100 for i in range(100)])
    token = ring.prepare_many(many)
    for _ in range(8):
        ring.prepare(Operation(Opcode.NOP))
    assert finish(ring)[token] == 0
    assert many.results == many.lengths


def dropped(memory: memoryview, increment: Increment) -> None:
    """Take the pages of a slot away: what is registered keeps them, plain memory reads as zeros."""
    start, address = addresses_of([memoryview(increment._map), memory])
    increment._map.madvise(mmap.MADV_DONTNEED, address - start, len(memory))


@pytest.mark.parametrize("how", ["one", "many"])
def test_memory_of_a_registered_slot_is_recognised(
    uring: RingLike, finish: Finish, descriptor: int, how: str
) -> None:
    """A fixed operation reads the pages that were registered, whatever is mapped there by now."""
    pool = BufferPool(2, 8192)
    uring.register(pool)
    slot = pool.slots[1]
    assert slot.buffer_index == 1
    slot.memory[:] = b"x" * 8192
    piece = slot.memory[4096:8192]
    dropped(piece, pool.increments[0])
    assert piece[0] == 0
    if how == "one":
        uring.prepare(operations.write(descriptor, piece, 0, 4096))
    else:
        uring.prepare_many(many_of(descriptor, [piece], [0]))
    finish(uring)
    assert os.pread(descriptor, 8192, 0) == b"x" * 4096


@pytest.mark.parametrize("how", ["one", "many"])
def test_memory_of_a_slot_that_the_pool_grew_by_is_recognised_until_it_goes(
    uring: RingLike, finish: Finish, descriptor: int, how: str
) -> None:
    """Wherever it is mapped, and with its own place in the table of registered buffers."""
    pool = BufferPool(2, 4096, 2 + 3 * INCREMENT_SLOTS)
    uring.register(pool)
    increments = []
    for _ in range(3):
        increment = pool.map_increment()
        assert increment is not None
        uring.register_increment(increment)
        pool.add(increment)
        increments.append(increment)

    def write(memory: memoryview) -> bytes:
        if how == "one":
            uring.prepare(operations.write(descriptor, memory, 0, 4096))
        else:
            uring.prepare_many(many_of(descriptor, [memory], [0]))
        finish(uring)
        return os.pread(descriptor, 4096, 0)

    slots = [increment.slots[number] for number, increment in enumerate(increments, 3)]
    for slot, increment in zip(slots, increments, strict=True):
        content = bytes([slot.index % 251 + 1]) * 4096
        slot.memory[:] = content
        dropped(slot.memory, increment)
        assert write(slot.memory) == content, "the pages that were registered"
    uring.unregister_increment(increments[1])
    assert write(slots[1].memory) == bytes(4096), "those that are there"
    assert write(slots[2].memory) != bytes(4096)
    uring.close()
    pool.close()


def test_memory_that_lies_in_two_slots_is_plain_memory(
    uring: RingLike, finish: Finish, descriptor: int
) -> None:
    pool = BufferPool(2, 4096)
    uring.register(pool)
    pool.slots[0].memory[:] = b"a" * 4096
    pool.slots[1].memory[:] = b"b" * 4096
    both = pool.increments[0]._memory[2048:6144]
    many = many_of(descriptor, [both], [0])
    uring.prepare(operations.write(descriptor, both, 4096, 4096))
    uring.prepare_many(many)
    finish(uring)
    assert os.pread(descriptor, 8192, 0) == (b"a" * 2048 + b"b" * 2048) * 2


def test_what_is_read_into_a_registered_slot_goes_to_what_was_registered(
    uring: RingLike, finish: Finish, descriptor: int
) -> None:
    pool = BufferPool(2, 8192)
    uring.register(pool)
    piece = pool.slots[1].memory[:4096]
    os.pwrite(descriptor, b"r" * 4096, 0)
    dropped(piece, pool.increments[0])
    uring.prepare(operations.read(descriptor, piece, 0, 4096))
    uring.prepare(operations.write(descriptor, piece, 4096, 4096))
    finish(uring)
    assert piece[0] == 0
    assert os.pread(descriptor, 8192, 4096) == b"r" * 4096
    uring.close()
    pool.close()


def test_several_files_share_a_queue_that_is_too_short_for_them(
    new_ring: Callable[..., RingLike], finish: Finish, tmp_path: Path
) -> None:
    ring = new_ring("io_uring", 8)
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "abc"]
    batches = [many_of(fd, pieces(40), [i * 100 for i in range(40)]) for fd in fds]
    tokens = [ring.prepare_many(many) for many in batches]
    assert finish(ring) == dict.fromkeys(tokens, 0)
    for fd, many in zip(fds, batches, strict=True):
        assert many.results == many.lengths
        assert os.pread(fd, 4001, 0) == b"".join(pieces(40))
        os.close(fd)


def test_what_finds_no_room_in_one_reap_comes_with_the_next(
    uring: RingLike, finish: Finish, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: set[int] = set()
    reap = uring.reap

    def counted() -> list[Completion]:
        completions = reap()
        sizes.add(len(completions))
        return completions

    monkeypatch.setattr(uring, "reap", counted)
    uring.features.completion_entries = 1
    tokens = [uring.prepare(Operation(Opcode.NOP)) for _ in range(3)]
    tokens += [uring.prepare_many(many_of(descriptor, pieces(2), [0, 100])) for _ in range(3)]
    assert finish(uring) == dict.fromkeys(tokens, 0)
    assert max(sizes) == 1


def test_a_completion_of_a_part_whose_whole_has_ended_is_nobodys(
    uring: UringRing, finish: Finish
) -> None:
    """No part outlives its whole; if one did, it would be noted nowhere and harm nobody."""
    uring._next_token = PART | 7 << 32 | 3
    stray = uring.prepare(Operation(Opcode.NOP))
    uring._next_token = 8
    token = uring.prepare(Operation(Opcode.NOP))
    uring.submit()
    assert uring.reap() == [(token, 0)]
    assert list(uring._held) == [stray]
    uring._held.clear()


@pytest.mark.parametrize("binding", [True, False])
def test_addresses_are_those_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, *, binding: bool
) -> None:
    if not binding:
        monkeypatch.setattr(module, "ffi", None)
    elif module.ffi is None:
        pytest.skip("the binding is not built")
    memory = memoryview(mmap.mmap(-1, 8192))
    first, second, constant = addresses_of([memory, memory[4097:], memoryview(bytes(9))])
    assert first % 4096 == 0
    assert second == first + 4097
    assert constant % 2 == 1 or binding


def test_multiples_are_told_from_others() -> None:
    assert all_multiples([0, 4096, 1 << 40], 4096)
    assert not all_multiples([0, 4096, 512], 4096)
    assert all_multiples([3, 5], 1)
    assert all_multiples([], 4096)
