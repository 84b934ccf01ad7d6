"""Clients that take no answers: what is kept for them is bounded in bytes, not only in number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.uringd.conftest import CREDIT, SLOTS
from uringd.config import UNSENT_BYTES_MAX
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import CONTROL_BYTES_MAX, ErrorCode, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, Until
    from tests.uringd.hostile.conftest import Bystander

BLOCK = 4096
HOLES = 400
"""Of an upload, so that the answer to its COMMIT is 5 KiB long."""
ASKED = 60
"""Requests without an answer: fewer than a client may have."""
DEAF = 8


async def scatter(peer: Peer, name: str) -> int:
    """Make an upload of many holes."""
    handle = await peer.create(name)
    for number in range(HOLES):
        await peer.wait_credit()
        await peer.data(handle, 2 * number * BLOCK, bytes(BLOCK))
    await peer.wait_credit(CREDIT)
    return handle


async def test_what_a_client_does_not_take_is_bounded_in_bytes(
    mock_clock: trio.testing.MockClock,
    daemon: Daemon,
    open_peer: OpenPeer,
    bystander: Bystander,
    until: Until,
) -> None:
    """Else a hundred bytes asked for would be 20 KiB kept, 64 times over, for each connection."""
    async with open_peer(daemon.unix) as peer:
        handle = await scatter(peer, "deaf")
        [session] = daemon.server.sessions
        async with trio.open_nursery() as nursery:

            async def ask_on() -> None:
                while True:
                    for _ in range(ASKED):
                        commit = pb.Commit(size=2 * HOLES * BLOCK)
                        frame = peer.request(FrameType.COMMIT, commit, handle)
                        await peer.send(frame)
                        peer.connection._requests.clear()

            nursery.start_soon(ask_on)
            await trio.testing.wait_all_tasks_blocked()
            unsent_bytes = session._sender._unsent_bytes
            assert UNSENT_BYTES_MAX < unsent_bytes <= UNSENT_BYTES_MAX + CONTROL_BYTES_MAX
            await bystander(daemon.tcp, daemon.root)
            nursery.cancel_scope.cancel()
        mock_clock.jump(daemon.server.settings.send_timeout_s + 1)
        await until(lambda: not daemon.server.sessions)
    assert (daemon.spool, daemon.free_slots) == ([], SLOTS)


async def test_who_takes_answers_late_gets_all_of_them_in_order(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await scatter(peer, "late")
        commit = pb.Commit(size=2 * HOLES * BLOCK)
        asked = [peer.request(FrameType.COMMIT, commit, handle) for _ in range(ASKED)]
        await peer.send(b"".join(asked))
        await trio.testing.wait_all_tasks_blocked()
        cookies = []
        for _ in asked:
            event = await peer.answer()
            assert event.message.code == ErrorCode.INCOMPLETE
            cookies.append(event.cookie)
        assert cookies == sorted(cookies)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_clients_that_take_no_acknowledgements_hold_no_slots(
    serving: Serving,
    open_peer: OpenPeer,
    bystander: Bystander,
    until: Until,
    count_descriptors: Callable[[], int],
    transport: str,
) -> None:
    async with serving() as daemon:
        before = count_descriptors()
        url = daemon.tcp if transport == "tcp" else daemon.unix
        async with trio.open_nursery() as nursery:

            async def fill(number: int) -> None:
                async with open_peer(url) as peer:
                    handle = await peer.create(f"deaf-{number}")
                    for chunk in range(peer.credit):
                        await peer.data(handle, chunk * BLOCK, bytes(BLOCK))
                    await trio.sleep_forever()

            for number in range(DEAF):
                nursery.start_soon(fill, number)
            await until(lambda: len(daemon.uploads) == DEAF)
            await until(lambda: all(u.written == CREDIT * BLOCK for u in daemon.uploads.values()))
            assert daemon.free_slots == SLOTS
            await bystander(daemon.unix, daemon.root)
            nursery.cancel_scope.cancel()
        await until(lambda: count_descriptors() == before)
        assert daemon.spool == []
