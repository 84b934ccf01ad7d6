"""How `uringd serve` ends under load: uploads are finished, or parked where they are."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.client import connect
from uringd.errors import ClientError, ConnectionLostError
from uringd.urls import UnixUrl
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess
    from tests.uringd.conftest import OpenPeer

ENDS_S = 60
BLOCK = 64 << 10
SLOT_ARGUMENTS = ("--slot-bytes", BLOCK)
BLOCKS_BEFORE, BLOCKS_AFTER = 10, 10
BLOCKS_MAX = 60
"""Who never finishes sends no more than this, and only says that it is there."""

CONFIG = "shutdown_timeout_s = 1.0\ncheckpoint_s = 0.1\n"


def block(client: int, number: int) -> bytes:
    """Make a block that is no other one."""
    return random.Random(client * BLOCKS_MAX + number).randbytes(64) * (BLOCK // 64)


class Crowd:
    """Clients with an upload each: even ones finish when the server leaves, odd ones never do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ready: dict[int, trio.Event] = {n: trio.Event() for n in range(6)}
        self.leaving = trio.Event()
        self.parked: dict[int, tuple[str, int, int]] = {}

    async def upload(self, number: int) -> None:
        """Fill an upload: what was acknowledged of a parked one is kept."""
        sent = BLOCKS_BEFORE
        try:
            async with connect(self.url) as client, client.upload(f"{number}") as upload:
                for i in range(BLOCKS_BEFORE):
                    await upload.write(block(number, i))
                self.ready[number].set()
                await self.leaving.wait()
                for i in itertools.count(BLOCKS_BEFORE):
                    if number % 2 == 0 and i == BLOCKS_BEFORE + BLOCKS_AFTER:
                        await upload.commit()
                        return
                    if i < BLOCKS_MAX:
                        await upload.write(block(number, i))
                        sent = i + 1
                    await client.ping()
        except ConnectionLostError:
            self.parked[number] = upload.id, upload.durable, sent


async def test_a_term_signal_under_load_finishes_or_parks_every_upload(
    serve_process: ServeProcess, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(CONFIG)
    arguments = (*SLOT_ARGUMENTS, "--config", tmp_path / "config")
    server = serve_process(*arguments)
    crowd = Crowd(server.unix)
    with trio.fail_after(ENDS_S):
        async with trio.open_nursery() as nursery:
            for number in crowd.ready:
                nursery.start_soon(crowd.upload, number)
            for ready in crowd.ready.values():
                await ready.wait()
            server.process.send_signal(signal.SIGTERM)
            crowd.leaving.set()
    assert server.process.wait(timeout=ENDS_S) == 0
    assert server.published == ["0", "2", "4"]
    for number in (0, 2, 4):
        whole = b"".join(block(number, i) for i in range(BLOCKS_BEFORE + BLOCKS_AFTER))
        assert (server.root / f"{number}").read_bytes() == whole
    assert set(crowd.parked) == {1, 3, 5}
    again = serve_process(*arguments)
    for number, (upload_id, durable, sent) in crowd.parked.items():
        content = b"".join(block(number, i) for i in range(sent))
        async with connect(again.unix) as client, client.resume(upload_id) as resumed:
            assert (await client.stat(upload_id=upload_id)).upload.durable >= durable > 0
            await resumed.write(content)
            await resumed.commit()
        assert (again.root / f"{number}").read_bytes() == content


CHILD = """
import os, sys
from pathlib import Path
import uringio
from uringd import serving
from uringd.config import Settings
from uringd.urls import UnixUrl
from uringio.exceptions import BrokenError
from uringio.lowlevel import run_ring
from uringio.testing import SimulatedRing

kind, root, socket = sys.argv[1:]

class BreakableRing(SimulatedRing):
    def submit(self):
        if os.path.exists(root + ".break"):
            raise BrokenError("the kernel takes no more operations (test)")
        Path(root + ".asked").touch()
        return super().submit()

def open_ring(slots, slot_bytes, backend):
    return run_ring(BreakableRing(0, late=1.0 if kind == "stuck" else 0.0), slots, slot_bytes)

uringio.open_ring = open_ring
settings = Settings(root=Path(root), listen=(UnixUrl(socket),), slot_bytes=65536)
print(serving.run(settings, "json"))
"""


@pytest.fixture
def simulated_server(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[str], UnixUrl]]:
    """Serve on a disk that never answers ("stuck"), or whose ring will break."""
    url = UnixUrl(str(tmp_path / "socket"))
    flag = "-I" if sys.flags.isolated else "-P"
    command = [sys.executable, flag, "-c", CHILD, request.param, str(tmp_path / "served"), url.path]
    with (
        (tmp_path / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening")
        yield process, url
        process.kill()


@pytest.mark.parametrize("simulated_server", ["stuck"], indirect=True)
async def test_a_third_signal_leaves_a_disk_that_never_answers(
    simulated_server: tuple[subprocess.Popen[str], UnixUrl], open_peer: OpenPeer, tmp_path: Path
) -> None:
    process, url = simulated_server

    async def until_it_says(word: str) -> None:
        with trio.fail_after(ENDS_S):
            while word not in (tmp_path / "server.log").read_text():
                await trio.lowlevel.checkpoint()

    async with open_peer(url) as peer:
        await peer.send(peer.request(FrameType.CREATE, pb.Create(name="never")))
        with trio.fail_after(ENDS_S):
            while not (tmp_path / "served.asked").exists():
                await trio.lowlevel.checkpoint()
        process.send_signal(signal.SIGTERM)
        await until_it_says("shutting down")
        process.send_signal(signal.SIGTERM)
        await until_it_says("shutting down at once")
        assert process.poll() is None, "it waits for the disk"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=ENDS_S) == -signal.SIGTERM


@pytest.mark.parametrize("simulated_server", ["breakable"], indirect=True)
async def test_a_ring_that_breaks_ends_the_server_and_the_next_one_goes_on(
    simulated_server: tuple[subprocess.Popen[str], UnixUrl],
    serve_process: ServeProcess,
    tmp_path: Path,
) -> None:
    """It could only refuse everybody; a new process has a new ring."""
    process, url = simulated_server
    content = b"".join(block(0, i) for i in range(3))
    with trio.fail_after(ENDS_S), pytest.raises(ConnectionLostError):
        async with connect(url, retry_s=0) as client, client.upload("file") as upload:
            await upload.write(content[: 2 * BLOCK])
            assert await upload.sync() == 2 * BLOCK
            (tmp_path / "served.break").touch()
            with pytest.raises(ClientError):
                async with connect(url, retry_s=0) as other:
                    await other.stat(name="absent")
            while True:
                await client.ping()
    output, _ = process.communicate(timeout=ENDS_S)
    assert "the ring is broken" in output
    again = serve_process()
    async with connect(again.unix) as client, client.resume(upload.id) as resumed:
        assert (await client.stat(upload_id=upload.id)).upload.durable == 2 * BLOCK
        await resumed.write(content)
        await resumed.commit()
    assert (again.root / "file").read_bytes() == content
