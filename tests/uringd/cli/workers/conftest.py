"""A server of several workers in processes of its own, and ways to meet a certain one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringd.client import connect
from uringd.errors import ConnectionLostError, RefusedError
from uringd.urls import parse_url

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess
    from tests.uringd.conftest import OpenPeer, Peer
    from uringd.v1 import uringd_pb2 as pb

STUCK_S = 60
TRIES = 200
"""Connections until one is with the worker that is wanted. Workers take turns, so it is a few."""

LOOK_S = 0.01
"""Between two looks at other processes."""

FEATURES = ("resume", "lanes")


@dataclass
class Workers:
    """A server's workers, by what its log and /proc say of them."""

    server: ServerProcess
    log: Path
    open_peer: OpenPeer

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    @property
    def pids(self) -> list[int]:
        """Those that were started and are there, oldest first."""
        started = [line["pid"] for line in self.events("worker started")]
        return [pid for pid in started if _is_there(pid)]

    def holders(self, upload_id: str) -> list[int]:
        """The workers that have an upload's spool file open."""
        return [pid for pid in self.pids if any(upload_id in name for name in _open_files(pid))]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    async def until_holder(self, upload_id: str) -> int:
        """Wait until a worker has an upload, and return which."""
        await until(lambda: bool(self.holders(upload_id)))
        return self.holders(upload_id)[0]

    async def until_gone(self) -> None:
        """Wait until no worker is there."""
        await until(lambda: not self.pids)

    async def until_event(self, event: str, count: int = 1) -> None:
        """Wait until the log has so many events of a kind."""
        await until(lambda: len(self.events(event)) >= count)

    async def until_upload(self, written: int) -> str:
        """Wait until there is an upload with so much written, and return its id."""
        with trio.fail_after(STUCK_S):
            async with connect(self.server.unix) as client:
                while True:
                    for upload in (await client.list_uploads()).uploads:
                        if upload.written >= written:
                            return upload.upload_id

    @contextlib.asynccontextmanager
    async def peer(
        self, but: set[bytes] | None = None, only: bytes | None = None
    ) -> AsyncIterator[tuple[Peer, pb.HelloReply]]:
        """Connect to a worker that is none of `but`, or the `only` one, by their instance ids."""
        url = parse_url(self.server.tcp)
        async with contextlib.AsyncExitStack() as tried:
            for _ in range(TRIES):
                async with contextlib.AsyncExitStack() as stack:
                    peer = await stack.enter_async_context(self.open_peer(url, hello=False))
                    reply = await peer.hello(features=FEATURES)
                    met = reply.instance_id
                    if met not in (but or set()) and only in {None, met}:
                        await tried.aclose()
                        async with stack.pop_all():
                            yield peer, reply
                        return
                    tried.push_async_exit(stack.pop_all())  # kept, so that the others have fewer
            raise AssertionError(f"{TRIES} connections did not meet another worker")

    async def refusal(self) -> RefusedError:
        """Connect until the server refuses to be connected to."""
        with trio.fail_after(STUCK_S):
            while True:
                try:
                    async with connect(self.server.unix) as client:
                        await client.ping()
                except RefusedError as exc:
                    return exc
                except ConnectionLostError:  # it was closed while we asked
                    continue


@pytest.fixture
def serve_workers(
    serve_process: ServeProcess, open_peer: OpenPeer, tmp_path: Path
) -> Callable[..., Workers]:
    """Start `uringd serve` with two workers, unless told otherwise."""

    def serve(*args: object, **options: Any) -> Workers:
        count = () if "--workers" in args else ("--workers", 2)
        server = serve_process(*count, *args, **options)
        return Workers(server, tmp_path / "server.log", open_peer)

    return serve


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do, in /proc and in a log: nothing tells of it."""
    with trio.fail_after(STUCK_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(LOOK_S)


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _open_files(pid: int) -> Iterator[str]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield os.readlink(f"{directory}/{name}")
