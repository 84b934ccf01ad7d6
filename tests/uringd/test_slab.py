"""Slabs: the disk reads what a client fills, with no copy between. PROTOCOL.md, "Shared memory"."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.uringd.conftest import CREDIT, SLOT_BYTES, Refusal
from tests.uringd.sharing import (
    F_ADD_SEALS,
    SEAL,
    Slab,
    ask_for_slab,
    attach_slab,
    place,
    punch,
    released,
    say_mapped,
)
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until

Content = Callable[[int], bytes]

MADV_REMOVE = 9

pytestmark = pytest.mark.usefixtures("needs_io_uring")

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    async with serving() as running:
        yield running


def fill(slab: Slab, number: int, data: bytes) -> int:
    """Fill a slot; the result is where it is."""
    at = number * slab.slot_bytes
    slab.memory[at : at + len(data)] = data
    return at


@pytest.mark.parametrize("read_back", [False, True])
async def test_chunks_are_written_from_a_slab(
    daemon: Daemon, open_peer: OpenPeer, content: Content, *, read_back: bool
) -> None:
    data = content(3 * CREDIT * SLOT_BYTES + 100)
    async with open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer, read_back=read_back)
        assert (slab.slot_bytes, len(slab)) == (SLOT_BYTES, CREDIT * SLOT_BYTES)
        handle = await peer.create("file", size=len(data))
        free = list(range(0, len(slab), SLOT_BYTES))
        for offset in range(0, len(data), SLOT_BYTES):
            while not free:
                seen = len(peer.acks)
                await peer.next_event()
                free += [at for _, ack in peer.acks[seen:] for at in ack.released]
            chunk = data[offset : offset + SLOT_BYTES]
            at = fill(slab, free.pop() // SLOT_BYTES, chunk)
            await place(peer, handle, offset, chunk, at)
        receipt = await peer.commit(handle, len(data), crc32c=crc32c(data))
        assert receipt.transport == ("slab-read-back" if read_back else "slab")
        os.close(slab.fd)
    assert (daemon.root / "file").read_bytes() == data


def punch_all(slab: Slab) -> int:
    return punch(slab.fd, len(slab))


def remove(slab: Slab) -> int:
    address = ctypes.addressof(ctypes.c_char.from_buffer(slab.memory))
    where, length = ctypes.c_void_p(address), ctypes.c_size_t(len(slab))
    return int(libc.madvise(where, length, MADV_REMOVE))


def map_anew(slab: Slab) -> int:
    mmap.mmap(slab.fd, len(slab), flags=mmap.MAP_SHARED)
    return 0


def shrink(slab: Slab) -> int:
    os.ftruncate(slab.fd, 0)
    return 0


def grow(slab: Slab) -> int:
    os.ftruncate(slab.fd, 2 * len(slab))
    return 0


def write(slab: Slab) -> int:
    return os.pwrite(slab.fd, b"x", 0)


def seal(slab: Slab) -> int:
    return fcntl.fcntl(slab.fd, F_ADD_SEALS, SEAL)


@pytest.mark.parametrize(
    "trick",
    [punch_all, remove, map_anew, shrink, grow, write, seal],
    ids=lambda trick: trick.__name__,
)
async def test_what_would_part_the_clients_memory_from_the_disks_is_refused_by_the_kernel(
    daemon: Daemon, open_peer: OpenPeer, content: Content, trick: Callable[[Slab], int]
) -> None:
    """The registered pages stay those of the mapping: what is filled after is what is written."""
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer)
        handle = await peer.create()
        await place(peer, handle, 0, bytes(SLOT_BYTES), fill(slab, 0, bytes(SLOT_BYTES)))
        await peer.wait_credit(CREDIT)
        try:
            assert trick(slab) < 0
            refused = ctypes.get_errno()
        except OSError as exc:
            refused = exc.errno or 0
        assert refused in {errno.EPERM, errno.EACCES}
        await place(peer, handle, SLOT_BYTES, data, fill(slab, 0, data))
        await peer.commit(handle, 2 * SLOT_BYTES)
        os.close(slab.fd)
    assert (daemon.root / "file").read_bytes() == bytes(SLOT_BYTES) + data


async def test_what_a_client_does_before_it_is_sealed_changes_nothing(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    """Until then nothing is registered, so that the pages may be exchanged."""
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "slab") as peer:
        fd, reply = await ask_for_slab(peer)
        memory = mmap.mmap(fd, reply.bytes, flags=mmap.MAP_SHARED)
        slab = Slab(fd, memory, reply.slot_bytes)
        assert punch_all(slab) == 0
        with pytest.raises(OSError, match="not permitted"):
            shrink(slab)
        memory[:] = bytes(len(memory))
        assert isinstance(await say_mapped(peer), pb.AttachReply)
        handle = await peer.create()
        await place(peer, handle, 0, data, fill(slab, 3, data))
        await peer.commit(handle, SLOT_BYTES)
        os.close(fd)
    assert (daemon.root / "file").read_bytes() == data


async def test_pages_that_the_client_has_not_touched_are_not_made_by_the_server(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    """They would be counted as the server's for as long as the client keeps its mapping."""
    async with open_peer(daemon.unix, "slab") as peer:
        fd, reply = await ask_for_slab(peer)
        memory = mmap.mmap(fd, reply.bytes, flags=mmap.MAP_SHARED)
        memory[4096:] = bytes(reply.bytes - 4096)
        refusal = await say_mapped(peer)
        assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.UNSUPPORTED
        assert os.fstat(fd).st_blocks * 512 == reply.bytes - 4096
        os.close(fd)
        assert daemon.server.slabs.used == 0
        slab = await attach_slab(peer)
        os.close(slab.fd)


async def test_a_slot_in_flight_is_not_used_twice(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(4096)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer)
        os.close(slab.fd)
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        await place(peer, handle, 0, data, fill(slab, 1, data))
        await until(lambda: bool(slow_ring.in_flight))
        await place(peer, handle, 4096, data, SLOT_BYTES)
        error = await peer.last_error()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER
        slow_ring.let_go()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"memory_offset": CREDIT * SLOT_BYTES}, ErrorCode.OUT_OF_RANGE),
        ({"memory_offset": 4096}, ErrorCode.MISALIGNED),
        ({"length": SLOT_BYTES + 1}, ErrorCode.TOO_LARGE),
    ],
)
async def test_a_place_that_is_no_slot_ends_the_session(
    daemon: Daemon, open_peer: OpenPeer, fields: dict[str, int], code: ErrorCode
) -> None:
    async with open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer)
        os.close(slab.fd)
        handle = await peer.create()
        await place(peer, handle, 0, bytes(4096), 0, wrong=fields)
        error = await peer.last_words()
        assert error is not None and error.code == code


async def test_no_chunk_is_taken_from_a_slab_that_is_not_sealed(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, "slab") as peer:
        fd, _ = await ask_for_slab(peer)
        os.close(fd)
        handle = await peer.create()
        await place(peer, handle, 0, bytes(4096), 0)
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.OUT_OF_ORDER


async def test_a_slab_is_asked_for_once_and_mapped_once(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, "slab") as peer:
        early = await say_mapped(peer)
        assert isinstance(early, Refusal) and early.code == ErrorCode.OUT_OF_ORDER
        slab = await attach_slab(peer)
        os.close(slab.fd)
        again = await say_mapped(peer)
        assert isinstance(again, Refusal) and again.code == ErrorCode.OUT_OF_ORDER
        error = await peer.refusal(FrameType.ATTACH, pb.Attach(mode="MEMORY_MODE_SLAB"))
        assert error.code == ErrorCode.OUT_OF_ORDER


async def test_each_session_has_memory_of_its_own_and_it_is_empty(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    async with open_peer(daemon.unix, "slab") as first, open_peer(daemon.unix, "slab") as second:
        one = await attach_slab(first)
        one.memory[:] = content(len(one))
        two = await attach_slab(second)
        assert two.memory[:] == bytes(len(two))
        assert os.fstat(one.fd).st_ino != os.fstat(two.fd).st_ino
        for slab in (one, two):
            os.close(slab.fd)
    async with open_peer(daemon.unix, "slab") as third:
        three = await attach_slab(third)
        assert three.memory[:] == bytes(len(three))
        os.close(three.fd)


async def test_slabs_are_bounded_and_come_back_when_their_sessions_end(
    serving: Serving, open_peer: OpenPeer, until: Until, count_descriptors: Callable[[], int]
) -> None:
    size = CREDIT * SLOT_BYTES
    async with serving(slab_bytes_max=size + SLOT_BYTES) as daemon:
        before = count_descriptors()
        async with open_peer(daemon.unix, "slab") as peer, open_peer(daemon.unix, "slab") as other:
            slab = await attach_slab(peer)
            os.close(slab.fd)
            assert daemon.server.slabs.used == size
            error = await other.refusal(FrameType.ATTACH, pb.Attach(mode="MEMORY_MODE_SLAB"))
            assert error.code == ErrorCode.UNSUPPORTED and "slab_bytes_max" in error.text
            slab.memory.close()
        await until(lambda: not daemon.server.slabs.used)
        async with open_peer(daemon.unix, "slab") as peer:
            slab = await attach_slab(peer)
            os.close(slab.fd)
            slab.memory.close()
        await until(lambda: count_descriptors() == before)


@pytest.mark.parametrize(("bytes_max", "count"), [(3 * SLOT_BYTES, 3), (SLOT_BYTES // 2, 2)])
async def test_a_connections_slab_is_no_longer_than_the_setting(
    serving: Serving, open_peer: OpenPeer, bytes_max: int, count: int
) -> None:
    async with (
        serving(slab_bytes_per_connection=bytes_max) as daemon,
        open_peer(daemon.unix, "slab") as peer,
    ):
        slab = await attach_slab(peer)
        os.close(slab.fd)
        assert len(slab) == count * SLOT_BYTES


@pytest.mark.parametrize("limit", ["slab_bytes_per_connection", "slab_bytes_max"])
async def test_slots_are_shorter_where_two_would_be_more_than_a_slab_may_have(
    serving: Serving, open_peer: OpenPeer, limit: str
) -> None:
    settings: dict[str, Any] = {
        "slab_slot_bytes": 16 * SLOT_BYTES,
        limit: 6 * SLOT_BYTES + 4096,
    }
    async with serving(**settings) as daemon, open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer)
        os.close(slab.fd)
        assert (slab.slot_bytes, len(slab)) == (3 * SLOT_BYTES, 6 * SLOT_BYTES)


async def test_a_slabs_slots_may_be_longer_than_the_pools(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    """But not those whose chunks are read back, which is into a slot of the pool."""
    data = content(4 * SLOT_BYTES)
    async with (
        serving(slab_slot_bytes=4 * SLOT_BYTES) as daemon,
        open_peer(daemon.unix, "slab") as peer,
        open_peer(daemon.unix, "slab") as careful,
    ):
        slab = await attach_slab(peer)
        os.close(slab.fd)
        assert slab.slot_bytes == 4 * SLOT_BYTES
        handle = await peer.create()
        await place(peer, handle, 0, data, fill(slab, 1, data))
        await peer.commit(handle, len(data))
        small = await attach_slab(careful, read_back=True)
        os.close(small.fd)
        assert small.slot_bytes == SLOT_BYTES
    assert (daemon.root / "file").read_bytes() == data


async def test_slabs_can_be_switched_off(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(slab_bytes_max=0) as daemon,
        open_peer(daemon.unix, hello=False) as peer,
    ):
        reply = await peer.hello(features=("copy", "slab"))
        assert list(reply.features) == ["copy"]
        error = await peer.refusal(FrameType.ATTACH, pb.Attach(mode="MEMORY_MODE_SLAB"))
        assert error.code == ErrorCode.UNSUPPORTED


async def test_a_client_that_leaves_with_slots_in_flight_leaves_its_memory_to_the_disk(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
) -> None:
    """Another lane keeps the upload; the slab goes after the last write from it, not before."""
    data = content(2 * SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume", "lanes") as lane:
        created = await lane.ask(FrameType.CREATE, pb.Create(name="file"))
        before = count_descriptors()
        async with open_peer(daemon.unix, "slab", "resume", "lanes") as peer:
            slab = await attach_slab(peer)
            joined = await peer.resume(created.upload_id, created.epoch, join=True)
            slow_ring.hold(Opcode.WRITE)
            for number in range(2):
                chunk = data[number * SLOT_BYTES :][:SLOT_BYTES]
                at = fill(slab, number, chunk)
                await place(peer, joined.upload, number * SLOT_BYTES, chunk, at)
            await until(lambda: slow_ring.in_flight >= 2)
            os.close(slab.fd)
            slab.memory.close()
        await until(lambda: len(daemon.server.sessions) == 1)
        assert daemon.server.slabs.used == CREDIT * SLOT_BYTES
        slow_ring.let_go()
        await until(lambda: not daemon.server.slabs.used)
        await until(lambda: count_descriptors() == before)
        await lane.commit(created.upload, len(data))
    assert (daemon.root / "file").read_bytes() == data


async def test_bytes_that_change_in_flight_are_the_clients_own_and_nobody_elses(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    """What is promised without reading back, and not more."""
    data, other = content(SLOT_BYTES), content(SLOT_BYTES + 4096)[4096:]
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix, "slab") as peer,
        open_peer(daemon.unix, "slab") as bystander,
    ):
        slab, its = await attach_slab(peer), await attach_slab(bystander)
        handle, its_handle = await peer.create("mine"), await bystander.create("its")
        slow_ring.hold(Opcode.WRITE)
        await place(peer, handle, 0, data, fill(slab, 0, data))
        await place(bystander, its_handle, 0, data, fill(its, 0, data))
        await until(lambda: slow_ring.in_flight >= 2)
        fill(slab, 0, other)
        slow_ring.let_go()
        receipt = await peer.commit(handle, SLOT_BYTES)
        await bystander.commit(its_handle, SLOT_BYTES)
        assert (receipt.transport, receipt.crc32c) == ("slab", crc32c(data))
        for each in (slab, its):
            os.close(each.fd)
    assert (daemon.root / "mine").read_bytes() == other
    assert (daemon.root / "its").read_bytes() == data


@pytest.mark.parametrize("level", ["sync", "commit", "written"])
async def test_read_back_acknowledges_nothing_that_the_disk_has_not(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Content,
    until: Until,
    level: str,
) -> None:
    data = content(2 * SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer, read_back=True)
        handle = await peer.create()
        await place(peer, handle, 0, data[:SLOT_BYTES], fill(slab, 0, data[:SLOT_BYTES]))
        await peer.wait_credit(CREDIT)
        slow_ring.hold(Opcode.WRITE)
        await place(peer, handle, SLOT_BYTES, data[SLOT_BYTES:], fill(slab, 1, data[SLOT_BYTES:]))
        await until(lambda: bool(slow_ring.in_flight))
        slab.memory[SLOT_BYTES + 5] ^= 1
        slow_ring.let_go()
        if level == "sync":
            error = await peer.refusal(FrameType.SYNC, pb.Sync(), handle)
        elif level == "commit":
            error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=len(data)), handle)
        else:
            _, error = await peer.notice()
        assert error.code == ErrorCode.IO and "changed while it was written" in error.text
        await peer.wait_credit(CREDIT)
        assert max(ack.written for _, ack in peer.acks) == SLOT_BYTES
        assert sorted(released(peer)) == [0, SLOT_BYTES]
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=len(data)), handle)
        assert error.code == ErrorCode.IO
        os.close(slab.fd)
    assert daemon.published == []


async def test_commit_waits_for_what_is_read_back(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    data = content(SLOT_BYTES)
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer, read_back=True)
        handle = await peer.create()
        slow_ring.hold(Opcode.READ)
        await place(peer, handle, 0, data, fill(slab, 0, data))
        await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=len(data)), handle))
        [upload] = daemon.uploads.values()
        await until(lambda: upload.state.name == "COMMITTING")
        for _ in range(100):
            await until(lambda: True)
        assert daemon.published == [] and upload.written == 0
        slow_ring.let_go()
        event = await peer.answer()
        assert event.message.transport == "slab-read-back"
        os.close(slab.fd)
    assert (daemon.root / "file").read_bytes() == data


async def test_what_is_refused_is_released(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(SLOT_BYTES)
    async with open_peer(daemon.unix, "slab") as peer:
        slab = await attach_slab(peer)
        handle = await peer.create(size=SLOT_BYTES)
        await place(peer, handle, SLOT_BYTES, data, fill(slab, 2, data))
        _, error = await peer.notice()
        assert error.code == ErrorCode.OUT_OF_RANGE
        await peer.wait_credit(CREDIT)
        assert released(peer) == [2 * SLOT_BYTES]
        await place(peer, handle, 0, data, fill(slab, 2, data))
        await peer.commit(handle, SLOT_BYTES)
        os.close(slab.fd)
