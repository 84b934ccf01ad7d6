"""Clients that want more than there is: sizes, reservations, credit, places for files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.uringd.conftest import CREDIT, SLOT_BYTES, SLOTS
from tests.uringd.hostile.conftest import spool_bytes
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import OFFSET_MAX, ErrorCode, FrameType
from uringio.lowlevel import Opcode
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import OpenPeer, Serving, Until
    from tests.uringd.hostile.conftest import Bystander

MIB = 1 << 20
BLOCK = 4096
UPLOADS = 16
"""As many as one connection may have."""
QUOTA_BYTES = 8 * MIB
DISK_MIB = 64
TERABYTE = 1 << 40

Content = Callable[[int], bytes]


def asked_for(ring: SimulatedRing) -> int:
    """The most bytes that a file system was asked to reserve at once."""
    return max((op.length for op, _ in ring.history if op.opcode is Opcode.FALLOCATE), default=0)


@pytest.mark.parametrize("size", [OFFSET_MAX, OFFSET_MAX - 4095, 1 << 61, 1 << 50])
async def test_a_size_that_no_disk_has_is_refused_and_the_disk_is_not_asked(
    serving: Serving, open_peer: OpenPeer, bystander: Bystander, size: int
) -> None:
    """ext4 would give all that is left, and then say that it was too little."""
    ring = SimulatedRing()
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        for _ in range(3):
            refusal = await peer.refusal(FrameType.CREATE, pb.Create(name="huge", size=size))
            assert refusal.code == ErrorCode.NO_SPACE
        assert (daemon.spool, daemon.server.registry._quota.used) == ([], 0)
        await bystander(daemon.tcp, daemon.root)
    assert asked_for(ring) < TERABYTE


@pytest.mark.parametrize("offset", [OFFSET_MAX // BLOCK * BLOCK - BLOCK, 1 << 50])
async def test_a_chunk_at_the_end_of_nowhere_breaks_its_upload_and_the_disk_is_not_asked(
    serving: Serving, open_peer: OpenPeer, bystander: Bystander, offset: int
) -> None:
    ring = SimulatedRing()
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create("far")
        await peer.data(handle, offset, bytes(BLOCK))
        _, refusal = await peer.notice()
        assert refusal.code == ErrorCode.NO_SPACE
        await bystander(daemon.tcp, daemon.root)
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        await peer.wait_credit(CREDIT)
        assert daemon.server.registry._quota.used == 0
    assert asked_for(ring) < TERABYTE


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", DISK_MIB)], indirect=True)
async def test_who_declares_more_than_the_disk_has_takes_no_block_from_anybody(
    serving: Serving, open_peer: OpenPeer, content: Content, file_system: Path
) -> None:
    root = file_system / "root"
    async with (
        serving(root=root) as daemon,
        open_peer(daemon.unix) as good,
        open_peer(daemon.unix) as greedy,
        trio.open_nursery() as nursery,
    ):

        async def be_greedy() -> None:
            while True:
                create = pb.Create(name="huge", size=2 * DISK_MIB * MIB)
                refusal = await greedy.refusal(FrameType.CREATE, create)
                assert refusal.code == ErrorCode.NO_SPACE

        nursery.start_soon(be_greedy)
        for number in range(5):
            data = content(20 * SLOT_BYTES + number)
            await good.upload(f"{number}", data, size=len(data))
            assert (root / f"{number}").read_bytes() == data
        nursery.cancel_scope.cancel()


async def test_what_is_reserved_ahead_counts_against_the_quota(
    serving: Serving, open_peer: OpenPeer, bystander: Bystander, until: Until
) -> None:
    """A first chunk of 4 KiB has 64 MiB reserved for what may follow, but not beyond the quota."""
    async with serving(spool_bytes_max=QUOTA_BYTES) as daemon:
        async with open_peer(daemon.unix, "resume") as peer:
            for number in range(UPLOADS):
                handle = await peer.create(f"{number}")
                await peer.data(handle, 0, bytes(BLOCK))
                await peer.wait_credit(CREDIT)
            assert UPLOADS * BLOCK <= spool_bytes(daemon) <= QUOTA_BYTES
            await bystander(daemon.tcp, daemon.root)
            assert daemon.server.registry._quota.used <= QUOTA_BYTES
        await until(lambda: not daemon.uploads)
        assert daemon.server.registry._quota.used == UPLOADS * BLOCK, "at rest only what is there"
        assert spool_bytes(daemon) <= UPLOADS * 2 * BLOCK


async def test_the_last_of_the_quota_goes_to_who_needs_it_and_not_to_guesses(
    serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(spool_bytes_max=QUOTA_BYTES) as daemon, open_peer(daemon.unix) as peer:
        first = await peer.create("first")
        await peer.fill(first, bytes(QUOTA_BYTES - 2 * SLOT_BYTES))
        second = await peer.create("second")
        await peer.fill(second, bytes(2 * SLOT_BYTES))
        assert (await peer.commit(second, 2 * SLOT_BYTES)).size == 2 * SLOT_BYTES


async def test_half_chunks_of_many_clients_cost_no_more_than_the_slots(
    serving: Serving, open_peer: OpenPeer, bystander: Bystander, until: Until
) -> None:
    """Each has a slot for a chunk that stops half way: slots come back to who waits."""
    async with serving(contended_chunk_s=0.05) as daemon:
        async with trio.open_nursery() as nursery:

            async def send_halves(number: int) -> None:
                async with open_peer(daemon.unix, "resume") as peer:
                    handle = await peer.create(f"half-{number}")
                    header = peer.connection.send_data_header(handle, 0, SLOT_BYTES, 0)
                    await peer.send(header + bytes(SLOT_BYTES // 2))
                    error = await peer.last_error()
                    assert error is not None and error.code == ErrorCode.TIMEOUT

            for number in range(2 * SLOTS):
                nursery.start_soon(send_halves, number)
            await until(lambda: daemon.free_slots == 0)
            for _ in range(3):
                await bystander(daemon.tcp, daemon.root)
            nursery.cancel_scope.cancel()
        await until(lambda: not daemon.server.sessions)
        assert daemon.free_slots == SLOTS
