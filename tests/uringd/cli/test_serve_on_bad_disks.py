"""`uringd serve` on disks that fail: real ones below a real file system, with a real ring.

The disk does what marked data says (tests/disks/fuse_disk.py), so no moment has to be met, and
nothing but the upload in question is hit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.disks.fixtures import FaultyFileSystem, faulty
from tests.disks.mounted import run
from tests.lacking import lacking, need_root, need_tool
from uringd.client import PutResult, connect
from uringd.errors import ConnectionLostError, RefusedError
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from tests.conftest import MakeFileSystem
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess

__all__ = ["faulty"]

ENDS_S = 60
SLOT_BYTES = 64 << 10
OPTIONS = ("--slots", "8", "--slot-bytes", SLOT_BYTES, "--log-format", "json")
CONTENT = random.Random(1).randbytes(5 * SLOT_BYTES + 77)
SMALL = random.Random(2).randbytes(9000)
ZRAM_DISK_MIB, ZRAM_MEMORY_MIB = 64, 8

pytestmark = pytest.mark.root


async def put(server: ServerProcess, name: str, content: bytes, **options: object) -> None:
    """Upload and commit; raises what the client raises."""
    async with (
        connect(server.unix, retry_s=0) as client,
        client.upload(name, **options) as upload,  # type: ignore[arg-type]
    ):
        await upload.write(content)
        await upload.commit()


async def put_small(
    server: ServerProcess, files: list[tuple[str, bytes]], **options: Any
) -> dict[str, PutResult]:
    results: dict[str, PutResult] = {}
    async with connect(server.unix) as client:
        await client.put_many(
            files, lambda result: results.update({result.name: result}), **options
        )
    return results


def ends_well(server: ServerProcess, log: Path, files: dict[str, bytes]) -> None:
    """The server leaves when it is asked to, with nothing left over and nothing but these files."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=ENDS_S) == 0
    assert "Traceback" not in log.read_text()
    assert server.spool == []
    assert server.published == sorted(files)
    for name, content in files.items():
        assert (server.root / name).read_bytes() == content


@pytest.mark.parametrize(("word", "code"), [("EIO", ErrorCode.IO), ("ENOSPC", ErrorCode.NO_SPACE)])
async def test_a_write_that_the_disk_refuses_costs_its_own_upload(
    faulty: FaultyFileSystem,
    serve_process: ServeProcess,
    tmp_path: Path,
    word: str,
    code: ErrorCode,
) -> None:
    server = serve_process(*OPTIONS, root=faulty.point / "root")
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    await put(server, "before", CONTENT)
    before = len(os.listdir(descriptors))
    async with connect(server.unix) as other, other.upload("other") as beside:
        await beside.write(CONTENT[:SLOT_BYTES])
        life = other.instance_id
        with pytest.raises(RefusedError) as caught:
            await put(server, "bad", faulty.marked(CONTENT, word, 2 * SLOT_BYTES))
        assert caught.value.code is code, caught.value
        await beside.write(CONTENT[SLOT_BYTES:])
        receipt = await beside.commit()
        assert receipt.instance_id != life, "what was only written may be lost"
    await put(server, "after", CONTENT)
    with trio.fail_after(ENDS_S):
        while len(os.listdir(descriptors)) > before:
            await trio.lowlevel.checkpoint()
    ends_well(
        server,
        tmp_path / "server.log",
        {"before": CONTENT, "other": CONTENT, "after": CONTENT},
    )


@pytest.mark.parametrize("count", [1, 8])
async def test_small_files_whose_bytes_do_not_reach_the_disk_are_published_to_nobody(
    faulty: FaultyFileSystem, serve_process: ServeProcess, tmp_path: Path, count: int
) -> None:
    """One is fsynced, eight have a barrier: the error is reported once, and once is enough."""
    server = serve_process(*OPTIONS, root=faulty.point / "root")
    files = [(f"bad-{number}", faulty.marked(SMALL, "EIO")) for number in range(count)]
    for result in (await put_small(server, files)).values():
        assert isinstance(result.error, RefusedError)
        assert result.error.code is ErrorCode.IO
    good = [(f"good-{number}", SMALL) for number in range(count)]
    for result in (await put_small(server, good)).values():
        assert result.error is None
    ends_well(server, tmp_path / "server.log", dict(good))


@pytest.mark.parametrize("count", [1, 8])
async def test_what_a_disk_has_lost_is_never_taken_for_what_is_there(
    faulty: FaultyFileSystem, serve_process: ServeProcess, count: int
) -> None:
    """Published as only written, and lost: the page cache shows it, and no second fsync fails."""
    server = serve_process(*OPTIONS, root=faulty.point / "root")
    files = [(f"bad-{number}", faulty.marked(SMALL, "EIO")) for number in range(count)]
    for result in (await put_small(server, files, durability="written")).values():
        assert result.error is None
    for _ in range(3):
        for result in (await put_small(server, files, keep_equal=True)).values():
            assert isinstance(result.error, RefusedError), "what is lost was called published"


async def test_a_flush_that_fails_once_is_no_success_and_nothing_acknowledged_is_lost(
    faulty: FaultyFileSystem, serve_process: ServeProcess, tmp_path: Path
) -> None:
    """The file system may be dead after it, and the server says so to everybody who asks."""
    root = faulty.point / "root"
    server = serve_process(*OPTIONS, root=root)
    await put(server, "before", CONTENT)
    with pytest.raises(RefusedError) as caught:
        await put(server, "bad", faulty.marked(CONTENT, "FLUSH", 2 * SLOT_BYTES))
    assert caught.value.code is ErrorCode.IO
    acknowledged = {"before": CONTENT}
    with contextlib.suppress(RefusedError):
        await put(server, "after", CONTENT)
        acknowledged["after"] = CONTENT
    async with connect(server.unix) as client:
        await client.ping()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=ENDS_S) == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()
    run("umount", faulty.point)
    run("mount", "-t", faulty.kind, faulty.disk.device, faulty.point)
    server = serve_process(*OPTIONS, root=root)
    for name, content in acknowledged.items():
        assert (root / name).read_bytes() == content
    async with connect(server.unix) as client:
        listed = await client.list_files()
    assert {file.name for file in listed.files} - {"bad"} == set(acknowledged)
    assert server.spool == []


async def test_writes_that_come_after_the_kill_hold_the_upload_until_they_are_over(
    faulty: FaultyFileSystem, serve_process: ServeProcess, tmp_path: Path
) -> None:
    """A killed server's write is on its way to the disk for as long as the disk likes."""
    root = faulty.point / "root"
    server = serve_process(*OPTIONS, root=root)
    async with (
        connect(server.unix, retry_s=0) as client,
        client.upload("late", len(CONTENT)) as upload,
    ):
        await upload.write(CONTENT[:SLOT_BYTES])
        assert await upload.sync() == SLOT_BYTES
        await upload.write(faulty.marked(CONTENT[SLOT_BYTES : 2 * SLOT_BYTES], "HOLD"))
        with trio.fail_after(ENDS_S):
            while not faulty.disk.held:
                await client.ping()
        server.process.kill()
        server.process.wait(timeout=ENDS_S)
        upload.keep()
    [part] = (root / ".uringd" / "spool").iterdir()
    assert is_locked(part), "the lock is held by a process that is gone"
    server = serve_process(*OPTIONS, root=root)
    async with connect(server.unix, retry_s=0) as client:
        with pytest.raises(ConnectionLostError, match="BUSY"):  # it would ask again: retry_s
            async with client.resume(upload.id):
                pytest.fail("it was resumed beside a write of its own past")
        with pytest.raises(RefusedError) as caught:
            await client.abort(upload.id)
        assert caught.value.code is ErrorCode.BUSY
    faulty.disk.control(b"release")
    async with connect(server.unix) as client, client.resume(upload.id) as resumed:
        assert resumed.durable == SLOT_BYTES
        await resumed.write(CONTENT)
        await resumed.commit()
    ends_well(server, tmp_path / "server.log", {"late": CONTENT})


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def thin(make_file_system: MakeFileSystem, tmp_path: Path) -> Iterator[Path]:
    """A file system that believes in more blocks than the one below it has."""
    below = make_file_system("ext4", 24)
    image, point = below / "image", tmp_path / "thin"
    image.touch()
    os.truncate(image, 64 << 20)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", image)
    point.mkdir()
    run("mount", "-o", "loop", image, point)
    yield point
    run("umount", point)


async def test_a_disk_that_runs_out_below_its_file_system_costs_uploads_and_no_promise(
    thin: Path, serve_process: ServeProcess, tmp_path: Path
) -> None:
    server = serve_process(*OPTIONS, root=thin / "root")
    acknowledged = {}
    with pytest.raises((RefusedError, ConnectionLostError)) as caught:
        for number in range(64):
            content = random.Random(number).randbytes(1 << 20)
            await put(server, f"{number}", content)
            acknowledged[f"{number}"] = content
    assert isinstance(caught.value, RefusedError), caught.value
    assert caught.value.code in {ErrorCode.IO, ErrorCode.NO_SPACE}
    assert acknowledged
    async with connect(server.unix) as client:
        await client.ping()
    for name, content in acknowledged.items():
        with (server.root / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == content
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=ENDS_S) == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.fixture
def zram(tmp_path: Path) -> Iterator[Path]:
    """A file system on compressed memory of which there is too little."""
    need_root("a zram device")
    control = Path("/sys/class/zram-control/hot_add")
    if not control.exists():
        lacking("this kernel has no zram")
    need_tool("mkfs.ext4")
    number = control.read_text().strip()
    device, settings = Path(f"/dev/zram{number}"), Path(f"/sys/block/zram{number}")
    point = tmp_path / "zram"
    point.mkdir()
    try:
        (settings / "disksize").write_text(f"{ZRAM_DISK_MIB}M")
        (settings / "mem_limit").write_text(f"{ZRAM_MEMORY_MIB}M")
        if not device.exists():
            major, minor = map(int, (settings / "dev").read_text().split(":"))
            os.mknod(device, 0o600 | 0o060000, os.makedev(major, minor))
        run("mkfs.ext4", "-q", "-F", device)
        run("mount", device, point)
        yield point
        run("umount", point)
    finally:
        (settings / "reset").write_text("1")
        (control.parent / "hot_remove").write_text(number)


async def test_a_block_device_that_fails_for_good_costs_uploads_and_no_promise(
    zram: Path, serve_process: ServeProcess, tmp_path: Path
) -> None:
    await test_a_disk_that_runs_out_below_its_file_system_costs_uploads_and_no_promise(
        zram, serve_process, tmp_path
    )
