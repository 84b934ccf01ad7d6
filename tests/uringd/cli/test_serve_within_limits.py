"""`uringd serve` within limits of its user: quota, file size, descriptors, locked memory.

Whatever is used up is an answer to who asked for it. Everybody else is served, and nothing leaks.
"""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import uringio
from tests.disks.mounted import run
from tests.lacking import lacking, need_root, need_tool
from uringd.client import connect
from uringd.errors import RefusedError
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from tests.conftest import MakeFileSystem
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess
    from uringd.client import ClientUpload

MIB = 1 << 20
ENDS_S = 60
OPTIONS = ("--slots", "8", "--slot-bytes", 64 << 10, "--log-format", "json")
CONTENT = random.Random(1).randbytes(MIB + 77)

DESCRIPTORS_LEFT = 4
UPLOADS_MAX = 16
"""Of one connection."""
QUOTA_BYTES = 8 * MIB

Log = Callable[[], list[dict[str, Any]]]


async def put(server: ServerProcess, name: str, content: bytes) -> None:
    """Upload and commit; raises what the client raises."""
    async with connect(server.unix, retry_s=0) as client, client.upload(name) as upload:
        await upload.write(content)
        await upload.commit()


def ends_well(server: ServerProcess, log: Path, files: dict[str, bytes]) -> None:
    """The server leaves when it is asked to, with nothing left over and nothing but these files."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=ENDS_S) == 0
    assert "Traceback" not in log.read_text()
    assert (server.spool, server.published) == ([], sorted(files))
    for name, content in files.items():
        assert (server.root / name).read_bytes() == content


@pytest.fixture
def with_quota(make_file_system: MakeFileSystem) -> Path:
    """A directory that may hold QUOTA_BYTES: a subvolume, which binds root as well."""
    need_tool("btrfs")
    point = make_file_system("btrfs", 256)
    run("btrfs", "quota", "enable", point)
    run("btrfs", "subvolume", "create", point / "limited")
    run("btrfs", "qgroup", "limit", QUOTA_BYTES, point / "limited")
    return point / "limited"


@pytest.mark.root
@pytest.mark.parametrize("declared", [False, True])
async def test_a_quota_that_is_used_up_is_no_space_and_there_is_room_after_it(
    with_quota: Path, serve_process: ServeProcess, tmp_path: Path, *, declared: bool
) -> None:
    server = serve_process(*OPTIONS, root=with_quota / "root")
    size = QUOTA_BYTES + MIB
    with pytest.raises(RefusedError) as caught:
        async with (
            connect(server.tcp) as client,
            client.upload("big", size if declared else None) as upload,
        ):
            for _ in range(size // MIB):
                await upload.write(bytes(MIB))
            await upload.commit()
    assert caught.value.code is ErrorCode.NO_SPACE
    assert "EDQUOT" in str(caught.value)
    run("sync", "-f", with_quota)
    await put(server, "small", CONTENT)
    ends_well(server, tmp_path / "server.log", {"small": CONTENT})


async def test_a_file_size_limit_is_no_space_also_in_mid_write(
    serve_process: ServeProcess, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE cuts the write short that crosses it, and refuses the next one."""
    limited = ("sh", "-c", 'ulimit -f 4096; exec "$@"', "sh")  # of 512 bytes: 2 MiB
    server = serve_process(*OPTIONS, prefix=limited)
    with pytest.raises(RefusedError) as caught:
        await put(server, "big", bytes(4 * MIB))
    assert caught.value.code is ErrorCode.NO_SPACE
    await put(server, "small", CONTENT)
    ends_well(server, tmp_path / "server.log", {"small": CONTENT})


async def test_descriptors_that_run_out_refuse_uploads_and_come_back(
    serve_process: ServeProcess, tmp_path: Path
) -> None:
    server = serve_process(*OPTIONS)
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    async with connect(server.unix) as client:
        await client.ping()
        before = len(os.listdir(descriptors))
        highest = max(map(int, os.listdir(descriptors)))
        limits = (highest + 1 + DESCRIPTORS_LEFT, 1024)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        async with AsyncExitStack() as stack:
            uploads: list[ClientUpload] = []
            with pytest.raises(RefusedError) as caught:
                for number in range(UPLOADS_MAX):
                    begun = client.upload(f"{number}")
                    uploads.append(await stack.enter_async_context(begun))
            assert caught.value.code is ErrorCode.IO
            assert "EMFILE" in str(caught.value)
            assert uploads
            await uploads[0].write(CONTENT)
            for other in uploads[1:]:
                await other.aclose()
            await uploads[0].commit()
        await put(server, "after", CONTENT)
        with trio.fail_after(ENDS_S):
            while len(os.listdir(descriptors)) > before:
                await client.ping()
    ends_well(server, tmp_path / "server.log", {"0": CONTENT, "after": CONTENT})


@pytest.mark.root
async def test_memory_that_may_not_be_locked_is_used_all_the_same_and_said(
    serve_process: ServeProcess, server_log: Log, tmp_path: Path
) -> None:
    need_root("dropping a capability")
    need_tool("setpriv")
    if not uringio.probe().available:
        lacking(uringio.probe().reason)
    no_lock = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    limited = ("sh", "-c", 'ulimit -l 256; exec "$@"', "sh", *no_lock)
    server = serve_process(*OPTIONS, prefix=limited)
    async with connect(server.tcp) as client, client.upload("file") as upload:
        await upload.write(CONTENT)
        await upload.commit()
    notes = [e["reason"] for e in server_log() if e["event"] == "not what was asked for"]
    assert any("RLIMIT_MEMLOCK" in note for note in notes)
    ends_well(server, tmp_path / "server.log", {"file": CONTENT})
