"""Greedy clients and a slow one: who waits for a slot gets one in turn.

PROTOCOL.md, "Flow control".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from tests.uringd.conftest import CREDIT, SLOT_BYTES, SLOTS

if TYPE_CHECKING:
    from tests.uringd.conftest import OpenPeer, Peer, Serving

GREEDY = 6
CHUNKS = 20

WAIT_MAX = 2 * SLOTS + GREEDY * CREDIT
"""Greedy chunks that may be taken between a slow client's chunk and its acknowledgement: those that
have a slot, those in line before it, and what was received by the time it came."""


@pytest.mark.parametrize("backend", ["io_uring", "threads"])
async def test_greedy_clients_cannot_starve_a_slow_one(
    serving: Serving, open_peer: OpenPeer, backend: str
) -> None:
    taken = 0
    async with serving(backend=backend) as daemon:

        async def be_greedy(number: int) -> None:
            nonlocal taken
            async with open_peer(daemon.unix) as peer:
                handle = await peer.create(f"greedy {number}")
                for chunk in itertools.count():
                    while not peer.credit:
                        before = peer.credit
                        await peer.next_event()
                        taken += peer.credit - before
                    await peer.data(handle, chunk * SLOT_BYTES, bytes(SLOT_BYTES))

        async with trio.open_nursery() as nursery, open_peer(daemon.unix) as slow:
            for number in range(GREEDY):
                nursery.start_soon(be_greedy, number)
            handle = await slow.create("slow")
            waits = []
            for chunk in range(CHUNKS):
                before = taken
                await slow.data(handle, chunk * SLOT_BYTES, bytes(SLOT_BYTES))
                await slow.wait_credit(CREDIT)
                waits.append(taken - before)
            nursery.cancel_scope.cancel()
            assert taken > GREEDY * CREDIT, "the others were not greedy"
            assert sorted(waits)[len(waits) // 2] <= WAIT_MAX, waits


async def test_a_client_gets_no_more_slots_than_it_was_granted(
    serving: Serving, open_peer: OpenPeer
) -> None:
    """Credit beyond what the pool can give to two is not granted: the third finds slots."""
    async with (
        serving(slots=4, credit_per_connection=1000) as daemon,
        open_peer(daemon.unix) as peer,
    ):
        assert peer.credit == 2
        await flood(peer)


async def flood(peer: Peer) -> None:
    """Use every credit at once, many times."""
    handle = await peer.create("file")
    for chunk in range(64):
        await peer.wait_credit()
        await peer.data(handle, chunk * SLOT_BYTES, bytes(SLOT_BYTES))
    await peer.commit(handle, 64 * SLOT_BYTES)
