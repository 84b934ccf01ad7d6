"""Accepting: a shortage is one line in the log, and costs nobody his connection."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from uringd import accepting
from uringd.accepting import accept_forever
from uringd.listeners import listen
from uringd.urls import UnixUrl

if TYPE_CHECKING:
    from pathlib import Path

TRIES = 5


class ShortListener(trio.abc.Listener[trio.SocketStream]):
    """A real listener in a process without room: its first tries fail."""

    def __init__(self, listener: trio.SocketListener, number: int, tries: int) -> None:
        self.listener = listener
        self.number = number
        self.tries = tries

    async def accept(self) -> trio.SocketStream:
        if self.tries:
            self.tries -= 1
            raise OSError(self.number, "accept failed (test)")
        return await self.listener.accept()

    async def aclose(self) -> None:
        await self.listener.aclose()


async def listening(path: Path, number: int, tries: int) -> tuple[UnixUrl, ShortListener]:
    listener = await listen(UnixUrl(str(path / "socket")))
    assert isinstance(listener.url, UnixUrl)
    return listener.url, ShortListener(listener.socket, number, tries)


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(await stream.receive_some(1))


@pytest.mark.parametrize("number", sorted(accepting.MENDS))
async def test_a_shortage_is_told_once_and_the_connection_is_served_afterwards(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, number: int
) -> None:
    url, listener = await listening(tmp_path, number, TRIES)
    with capture_logs() as events:
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, echo)
            async with await trio.open_unix_socket(url.path) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
            nursery.cancel_scope.cancel()
    [event] = events
    assert event["event"] == "connections have to wait"
    assert event["mend"] == accepting.MENDS[number]
    assert not listener.tries


async def test_a_shortage_that_lasts_is_told_again_after_a_while(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    _, listener = await listening(tmp_path, errno.EMFILE, 1 << 30)
    with capture_logs() as events, trio.move_on_after(2.5 * accepting.TOLD_AGAIN_S):
        async with listener:
            await accept_forever(listener, echo)
    assert len(events) == 3


async def test_a_listener_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    _, listener = await listening(tmp_path, errno.EBADF, 1)
    async with listener:
        with pytest.RaisesGroup(OSError):
            await accept_forever(listener, echo)
