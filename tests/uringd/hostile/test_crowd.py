"""Many connections at once, and what each of them can make the server do.

URINGD_TEST_CONNECTIONS says how many; `make hostile` tries 10,000.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.lacking import lacking
from tests.soak.watch import look
from tests.uringd.cli.workers.conftest import Workers
from uringd.urls import parse_url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Connection, FrameType, Role

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess
    from tests.uringd.conftest import OpenPeer, Peer
    from tests.uringd.hostile.conftest import Bystander

CONNECTIONS = int(os.environ.get("URINGD_TEST_CONNECTIONS", "1000"))
APART = 200
"""Descriptors of this process besides those of the crowd."""

WELCOME_S = 50
PASSING = 2
"""Descriptors of somebody who was there before the crowd and has gone since."""

CONNECTION_BYTES_MAX = 32 << 10
"""What a connection may cost of the server's memory: twice what config.py says it does."""
SLACK_BYTES = 16 << 20
"""What the server's memory may grow by for whatever reason."""

REQUESTS = 100
REQUEST_CPU_S_MAX = 0.02
"""What one request may cost of the server's time: several times what a fsync and its record do."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Content = Callable[[int], bytes]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + APART:
        lacking(f"{CONNECTIONS} connections need more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + APART), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_crowd_costs_little_each_and_leaves_nothing(
    serve_process: ServeProcess,
    open_peer: OpenPeer,
    bystander: Bystander,
    many_descriptors: None,
    tmp_path: Path,
    workers: int,
) -> None:
    config = tmp_path / "crowd.toml"
    config.write_text(f"connections_max = {CONNECTIONS + 10}\n")
    server = serve_process("--config", config, "--workers", workers)
    url = parse_url(server.tcp)
    await bystander(url, server.root)
    pids = [server.process.pid]
    if workers > 1:
        pids = Workers(server, tmp_path / "server.log", open_peer).pids
    before = [look(pid) for pid in pids]
    crowd: list[socket.socket] = []
    try:
        await trio.to_thread.run_sync(come, server.unix.removeprefix("unix://"), crowd)
        await bystander(url, server.root)
        at_most = [look(pid) for pid in pids]
        grown = sum(
            now.rss_bytes - then.rss_bytes for now, then in zip(at_most, before, strict=True)
        )
        assert grown < CONNECTIONS * CONNECTION_BYTES_MAX + SLACK_BYTES * len(pids)
        opened = sum(
            now.descriptors - then.descriptors for now, then in zip(at_most, before, strict=True)
        )
        assert CONNECTIONS - PASSING <= opened <= CONNECTIONS + APART
    finally:
        for one in crowd:
            one.close()
    with trio.fail_after(50):
        while any(
            look(pid).descriptors > then.descriptors for pid, then in zip(pids, before, strict=True)
        ):
            await bystander(url, server.root)


def come(path: str, crowd: list[socket.socket]) -> None:
    """Connect them all, and have each welcomed. connect(2) waits while too many wait."""
    hello = Connection(Role.CLIENT).send_control(FrameType.HELLO, pb.Hello(client="x"), cookie=1)
    for _ in range(CONNECTIONS):
        crowd.append(socket.socket(socket.AF_UNIX))
        crowd[-1].connect(path)
        crowd[-1].settimeout(WELCOME_S)
        crowd[-1].sendall(hello)
    for one in crowd:
        assert one.recv(4096), "it was not welcomed"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


ASKS: dict[str, tuple[FrameType, object]] = {
    "nothing": (FrameType.PING, pb.Ping()),
    "a deep name": (FrameType.STAT, pb.Stat(name="d/" * 511 + "x")),
    "a name that is none": (FrameType.CREATE, pb.Create(name="/" * 1024)),
    "a huge upload": (FrameType.CREATE, pb.Create(name="x", size=(1 << 63) - 1)),
    "a list of nothing": (FrameType.LIST, pb.List(prefix="no file has this")),
    "a list of uploads": (FrameType.LIST, pb.List(uploads=True)),
    "a receipt": (FrameType.RESUME, pb.Resume(upload_id="ab" * 16)),
    "an upload of nobody": (FrameType.RESUME, pb.Resume(upload_id="cd" * 16)),
    "to abort nothing": (FrameType.ABORT, pb.Abort(upload_id="cd" * 16)),
}


async def test_no_request_makes_the_server_work_out_of_proportion(
    serve_process: ServeProcess, open_peer: OpenPeer, bystander: Bystander
) -> None:
    """By its CPU time, beside a tree and uploads that others have made."""
    server = serve_process()
    url, pid = parse_url(server.unix), server.process.pid
    for directory in range(50):
        (server.root / f"dir-{directory}").mkdir()
        for file in range(40):
            (server.root / f"dir-{directory}/{file}").touch()
    async with open_peer(url, "resume") as peer, open_peer(url, "resume") as other:
        await peer.commit(await peer.create("receipt", upload_id="ab" * 16), 0)
        for number in range(10):
            await other.create(f"{number}")
        for asked, (frame_type, message) in ASKS.items():
            before_s, before_bytes = cpu_s(pid), look(pid).rss_bytes
            await flood(peer, frame_type, message)
            assert (cpu_s(pid) - before_s) / REQUESTS < REQUEST_CPU_S_MAX, asked
            assert look(pid).rss_bytes - before_bytes < SLACK_BYTES, asked
        await bystander(url, server.root)


async def flood(peer: Peer, frame_type: FrameType, message: object) -> None:
    """Ask again and again, many at a time."""
    for _ in range(REQUESTS // 50):
        frames = [peer.request(frame_type, message) for _ in range(50)]
        await peer.send(b"".join(frames))
        for _ in frames:
            await peer.answer()
