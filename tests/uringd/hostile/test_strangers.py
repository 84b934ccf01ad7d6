"""Clients that are never admitted: slow handshakes, wrong tokens, as many as there may be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio
import trio.testing

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import Daemon, OpenPeer, Serving, Until
    from tests.uringd.hostile.conftest import Bystander

STRANGERS = 100
PLACES = 4
TOKEN = "the token"


async def test_handshakes_of_a_byte_at_a_time_end_all_together_and_hold_up_nobody(
    mock_clock: trio.testing.MockClock,
    daemon: Daemon,
    open_peer: OpenPeer,
    bystander: Bystander,
    until: Until,
    count_descriptors: Callable[[], int],
) -> None:
    before = count_descriptors()
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(open_peer(daemon.tcp, hello=False))
            for _ in range(STRANGERS)
        ]
        frames = [peer.request(FrameType.HELLO, pb.Hello(client="x")) for peer in peers]
        for at in range(10):  # a second each
            for peer, frame in zip(peers, frames, strict=True):
                await peer.send(frame[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.99)
        await bystander(daemon.tcp, daemon.root)
        await until(lambda: len(daemon.server.sessions) == STRANGERS)
        mock_clock.jump(0.2)
        for peer in peers:
            error = await peer.last_error()
            assert error is not None and error.code == ErrorCode.TIMEOUT
    await until(lambda: not daemon.server.sessions)
    await until(lambda: count_descriptors() == before)


async def test_who_says_nothing_gives_way_when_all_places_are_taken(
    serving: Serving, open_peer: OpenPeer, bystander: Bystander, until: Until
) -> None:
    """Else who has no token could keep out who has: each place ten seconds, again and again."""
    async with serving(connections_max=PLACES) as daemon, contextlib.AsyncExitStack() as stack:
        silent = [
            await stack.enter_async_context(open_peer(daemon.unix, hello=False))
            for _ in range(PLACES)
        ]
        await until(lambda: len(daemon.server.sessions) == PLACES)
        await bystander(daemon.unix, daemon.root)
        error = await silent[0].last_words()
        assert error is not None and error.code == ErrorCode.TOO_MANY_CONNECTIONS
        await until(lambda: len(daemon.server.sessions) == PLACES - 1)
        await silent[1].hello()
        await silent[1].ask(FrameType.PING, pb.Ping())


async def test_who_was_admitted_gives_way_to_nobody(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(connections_max=PLACES) as daemon, contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(open_peer(daemon.unix, "resume")) for _ in range(PLACES)
        ]
        async with open_peer(daemon.unix, hello=False) as late:
            error = await late.last_words()
            assert error is not None and error.code == ErrorCode.TOO_MANY_CONNECTIONS
        for peer in peers:
            await peer.ask(FrameType.PING, pb.Ping())


async def test_wrong_tokens_keep_nobody_out_who_has_the_right_one(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with (
        serving(connections_max=PLACES, token=TOKEN) as daemon,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3 * PLACES):
            peer = await stack.enter_async_context(open_peer(daemon.unix, hello=False))
            refusal = await peer.refusal(FrameType.HELLO, pb.Hello(client="x", token="wrong"))
            assert refusal.code == ErrorCode.UNAUTHORIZED  # and it keeps its end open
        async with open_peer(daemon.unix, hello=False) as good:
            await good.hello(token=TOKEN)
            await good.upload("file", b"content")
            assert len(daemon.server.sessions) <= PLACES
    assert (daemon.root / "file").read_bytes() == b"content"
