"""Servers to be judged: ours, and ours behind a proxy that lies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import trio

from uringd.conformance.cases import CASES
from uringd.conformance.frames import raw
from uringd.conformance.runner import Result, run
from uringd.listeners import listen
from uringd.urls import UnixUrl
from uringd.wire import HEADER_BYTES, Control, decode_header, parse

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon
    from uringd.conformance.target import Target

Lie = Callable[[Control], Control | bytes | None]
"""What becomes of a server's frame: another one, other bytes, or nothing."""


class Behind(Protocol):
    def __call__(self, daemon: Daemon, lie: Lie) -> AbstractAsyncContextManager[UnixUrl]: ...


class Judge(Protocol):
    async def __call__(self, target: Target, *ids: str) -> list[Result]: ...


@pytest.fixture
def judge() -> Judge:
    """Run cases by their ids, or by the prefix of one."""

    async def judge(target: Target, *ids: str) -> list[Result]:
        cases = [case for case in CASES if case.id.startswith(ids)]
        assert cases
        return await run(target, cases, lambda _: None)

    return judge


@pytest.fixture
def behind(tmp_path: Path) -> Behind:
    """Put a proxy in front of a server that changes what the server says."""

    @contextlib.asynccontextmanager
    async def open_proxy(daemon: Daemon, lie: Lie) -> AsyncIterator[UnixUrl]:
        listener = await listen(UnixUrl(str(tmp_path / "proxy")))

        async def serve(client: trio.SocketStream) -> None:
            async with client, await trio.open_unix_socket(daemon.unix.path) as server:
                with contextlib.suppress(trio.BrokenResourceError):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(forward, client, server)
                        await alter(server, client, lie)
                        nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener.socket])
            assert isinstance(listener.url, UnixUrl)
            yield listener.url
            nursery.cancel_scope.cancel()
        await listener.aclose()

    return open_proxy


async def forward(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """Hand the client's bytes on as they are."""
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()


async def alter(source: trio.SocketStream, sink: trio.SocketStream, lie: Lie) -> None:
    """Hand the server's frames on as the lie has them."""
    buffer = bytearray()
    async for data in source:
        buffer += data
        while len(buffer) >= HEADER_BYTES:
            header = decode_header(buffer)
            whole = HEADER_BYTES + header.payload_length
            if len(buffer) < whole:
                break
            message = parse(header.type, bytes(buffer[HEADER_BYTES:whole]), from_server=True)
            del buffer[:whole]
            told = lie(Control(header.type, header.is_reply, header.cookie, header.upload, message))
            if isinstance(told, Control):
                told = frame_of(told)
            if told:
                await sink.send_all(told)


def frame_of(event: Control) -> bytes:
    return raw(
        event.type,
        event.message.SerializeToString(),
        flags=int(event.is_reply),
        cookie=event.cookie,
        upload=event.upload,
    )
