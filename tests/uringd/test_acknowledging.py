"""When a session acknowledges: seldom, but never so late that its client stands still."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from tests.uringd.sharing import attach_slab, place, released
from uringd.acknowledging import Acknowledgements
from uringd.wire import RANGES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import OpenPeer, Serving, SlowRing, Until


class Woken:
    """Counts how often an ACK was due."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_an_ack_is_due_for_half_of_the_credit_or_the_last_of_it() -> None:
    wake = Woken()
    acks = Acknowledgements(8, wake)
    for _ in range(5):
        acks.consume(1)
    for _ in range(3):
        acks.give_back(1)
    assert wake.times == 0
    acks.give_back(1)
    assert wake.times == 1
    list(acks.take(bytes(16), lambda _: None))
    acks.give_back(1)
    assert wake.times == 2, "that was the last one in use"


def test_a_client_with_fewer_places_than_credit_is_not_kept_waiting() -> None:
    wake = Woken()
    acks = Acknowledgements(8, wake)
    acks.lower_usable(3)
    acks.lower_usable(4)
    for _ in range(3):
        acks.consume(1)
    acks.give_back(1)
    assert wake.times == 1


@pytest.mark.usefixtures("needs_io_uring")
async def test_a_slab_smaller_than_the_credit_is_released_while_the_rest_of_it_is_written(
    serving: Serving,
    slow_ring: SlowRing,
    open_peer: OpenPeer,
    content: Callable[[int], bytes],
    until: Until,
) -> None:
    """Else the disk would wait for the client to fill all of it, and then the client for it."""
    places = CREDIT // 2
    data = content(places * SLOT_BYTES)
    async with (
        serving(slow_ring, slab_bytes_per_connection=len(data)) as daemon,
        open_peer(daemon.unix, "slab") as peer,
    ):
        slab = await attach_slab(peer)
        assert len(slab) == len(data)
        slab.memory[:] = data
        handle = await peer.create()
        slow_ring.held = lambda operation: operation.offset >= SLOT_BYTES and bool(operation.length)
        for at in range(0, len(data), SLOT_BYTES):
            await place(peer, handle, at, data[at : at + SLOT_BYTES], at)
        await until(lambda: slow_ring.in_flight >= places - 1)
        while not released(peer):
            await peer.next_event()
        assert released(peer) == [0]
        slow_ring.let_go()
        await peer.commit(handle, len(data))
        os.close(slab.fd)
    assert (daemon.root / "file").read_bytes() == data


def test_more_places_than_one_ack_can_name_go_in_several() -> None:
    acks = Acknowledgements(2 * RANGES_MAX, Woken())
    places = range(RANGES_MAX + 5)
    for at in places:
        acks.consume(1)
        acks.give_back(1, at)
    sent = list(acks.take(bytes(16), lambda _: None))
    assert [len(ack.released) for _, ack in sent] == [5, RANGES_MAX]
    assert sorted(at for _, ack in sent for at in ack.released) == list(places)
    assert sum(ack.credit for _, ack in sent) == len(places)
