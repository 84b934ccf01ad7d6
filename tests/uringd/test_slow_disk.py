"""A disk slower than the network: memory is bounded, nobody starves or is taken for gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from tests.uringd.small.conftest import hold_groups
from uringd.server import REMINDER_S
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, SlowRing, Until

CLIENTS = 6


async def fill_credit(peer: Peer, handle: int) -> None:
    for chunk in range(CREDIT):
        await peer.data(handle, chunk * SLOT_BYTES, bytes(SLOT_BYTES))


async def let_time_pass(clock: trio.testing.MockClock) -> None:
    """Pass the time of one reminder. A held disk never lets all tasks block: passes are counted."""
    for _ in range(2):
        clock.jump(REMINDER_S + 0.1)
        for _ in range(10):
            await trio.lowlevel.checkpoint()


async def test_a_client_whose_chunks_wait_for_the_disk_is_not_idle_and_hears_of_us(
    mock_clock: trio.testing.MockClock,
    serving: Serving,
    open_peer: OpenPeer,
    slow_ring: SlowRing,
    until: Until,
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        await fill_credit(peer, handle)
        [upload] = daemon.uploads.values()
        await until(lambda: upload.accepted == CREDIT * SLOT_BYTES)
        reminders = int(2 * daemon.server.settings.idle_timeout_s / REMINDER_S)
        for _ in range(reminders):
            await let_time_pass(mock_clock)
            await peer.next_event()
        assert {(about, ack.credit, ack.written) for about, ack in peer.acks} == {(handle, 0, 0)}
        slow_ring.let_go()
        await peer.wait_credit(CREDIT)
        assert (await peer.commit(handle, CREDIT * SLOT_BYTES)).size == CREDIT * SLOT_BYTES


async def test_a_small_upload_is_waited_for_longer_than_the_chunks_beside_it(
    mock_clock: trio.testing.MockClock,
    serving: Serving,
    open_peer: OpenPeer,
    slow_ring: SlowRing,
    until: Until,
) -> None:
    """An answer is owed: that chunks wait, too, must not make a client idle when they are done."""
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "small-uploads") as peer:
        held = hold_groups(daemon)
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        await fill_credit(peer, handle)
        await peer.send(peer.request(FrameType.PUT, pb.Put(name="small", content=b"content")))
        [session] = daemon.server.sessions
        await until(lambda: session.small.in_flight == 1)
        await let_time_pass(mock_clock)
        slow_ring.let_go()
        await peer.wait_credit(CREDIT)
        for _ in range(2):
            mock_clock.jump(daemon.server.settings.idle_timeout_s)
            await trio.testing.wait_all_tasks_blocked()
        held.set()
        assert (await peer.answer()).type is FrameType.PUT
        await peer.commit(handle, CREDIT * SLOT_BYTES)


async def test_a_client_without_chunks_here_is_reminded_of_nothing(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.fill(handle, bytes(SLOT_BYTES))
        peer.acks.clear()
        for _ in range(3):
            await let_time_pass(mock_clock)
        await peer.ask(FrameType.PING, pb.Ping())
        assert peer.acks == []


async def test_ping_is_answered_while_the_disk_stands_still(
    serving: Serving, open_peer: OpenPeer, slow_ring: SlowRing
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        await fill_credit(peer, handle)
        await peer.ask(FrameType.PING, pb.Ping())


async def test_who_waits_for_a_slot_of_a_slow_disk_hears_of_us_too(
    mock_clock: trio.testing.MockClock,
    serving: Serving,
    open_peer: OpenPeer,
    slow_ring: SlowRing,
    until: Until,
) -> None:
    """Its chunk is not even received: all slots are taken by others."""
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix) as first,
        open_peer(daemon.unix) as second,
        open_peer(daemon.unix) as third,
    ):
        handles = [await peer.create(f"{n}") for n, peer in enumerate((first, second, third))]
        slow_ring.hold(Opcode.WRITE)
        await fill_credit(first, handles[0])
        await fill_credit(second, handles[1])
        await until(lambda: daemon.free_slots == 0)
        await third.data(handles[2], 0, bytes(SLOT_BYTES))
        await until(lambda: daemon.server.ring.slots.waiting == 1)
        await let_time_pass(mock_clock)
        await third.next_event()
        assert [(about, ack.credit) for about, ack in third.acks] == [(handles[2], 0)]
        slow_ring.let_go()
        await third.wait_credit(CREDIT)


async def test_all_slots_of_a_slow_disk_are_in_use_and_no_more(
    serving: Serving, open_peer: OpenPeer, slow_ring: SlowRing, until: Until
) -> None:
    """What clients send beyond them stays in their sockets; each gets its turn when it is freed."""
    async with serving(slow_ring) as daemon, trio.open_nursery() as nursery:
        receipts: list[pb.Receipt] = []
        size = 2 * CREDIT * SLOT_BYTES
        begun = 0

        async def upload(number: int) -> None:
            nonlocal begun
            async with open_peer(daemon.unix) as peer:
                handle = await peer.create(f"{number}")
                begun += 1
                await started.wait()
                await peer.fill(handle, bytes([number]) * size)
                receipts.append(await peer.commit(handle, size))

        started = trio.Event()
        for number in range(CLIENTS):
            nursery.start_soon(upload, number)
        await until(lambda: begun == CLIENTS)
        slow_ring.hold(Opcode.WRITE)
        started.set()
        await until(lambda: daemon.server.ring.slots.waiting > 0)
        assert daemon.free_slots == 0
        slow_ring.let_go()
        await until(lambda: len(receipts) == CLIENTS)
    for number in range(CLIENTS):
        assert (daemon.root / f"{number}").read_bytes() == bytes([number]) * size
