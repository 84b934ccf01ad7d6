"""A server that was killed between any two steps: what the next one makes of what it left."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs

from tests.uringd.conftest import SLOT_BYTES
from uringd.catalog import CatalogError
from uringd.urls import UnixUrl
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType, crc32c
from uringio.lowlevel import Opcode
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import OpenPeer, Serving

Content = Callable[[int], bytes]

UPLOAD_ID = "0123456789abcdef" * 2
SIZE = 3 * SLOT_BYTES

ISOLATED = "-I" if sys.flags.isolated else "-P"
"""As the tests themselves run: without the source tree where they do."""

# A server that kills itself where it would call a function of its own, or right after it.
SERVER = """
import importlib, os, signal, sys
from pathlib import Path

import trio

from uringd.config import Settings
from uringd.logs import configure
from uringd.server import serve
from uringd.urls import UnixUrl

configure("json")
root, socket, module, owner, name, when = sys.argv[1:]
holder = importlib.import_module(module)
for part in filter(None, owner.split(".")):
    holder = getattr(holder, part)
original = getattr(holder, name)

async def killed(*args, **options):
    if when == "after":
        await original(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
    await trio.sleep_forever()

setattr(holder, name, killed)
settings = Settings(Path(root), (UnixUrl(socket),), slots=16, slot_bytes=65536)
trio.run(serve, settings, lambda listener: print("ready", flush=True))
"""

Killed = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def doomed(tmp_path: Path) -> Killed:
    """Start a server that will be killed by itself at a point."""

    def start(point: str, when: str) -> subprocess.Popen[bytes]:
        module, path = point.split(":")
        *owner, name = path.split(".")
        args = [tmp_path / "root", tmp_path / "doomed", module, ".".join(owner), name, when]
        process = subprocess.Popen(
            [sys.executable, ISOLATED, "-c", SERVER, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    return start


async def upload_until_killed(
    tmp_path: Path, open_peer: OpenPeer, data: bytes, *, durability: int = 0, end: str = "commit"
) -> None:
    """Upload to a server that goes away somewhere in it."""
    async with open_peer(UnixUrl(str(tmp_path / "doomed")), "resume") as peer:
        try:
            handle = await peer.create("a/file", upload_id=UPLOAD_ID, durability=durability)
            await peer.fill(handle, data)
            await peer.ask(FrameType.SYNC, pb.Sync(), handle)
            if end == "commit":
                await peer.commit(handle, len(data))
            else:
                await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        except (AssertionError, trio.BrokenResourceError):
            return  # it was killed
        raise AssertionError("the server was not killed")


BEFORE_RENAME = [
    ("uringd.uploads:publish", "before"),
    ("uringd.catalog:Catalog.begin_commit", "before"),
    ("uringd.catalog:Catalog.begin_commit", "after"),
    ("uringd.publishing:run_steps", "before"),
]
AFTER_RENAME = [
    ("uringd.publishing:run_steps", "after"),
    ("uringd.uploads:publish", "after"),
    ("uringd.catalog:Catalog.publish", "before"),
    ("uringd.catalog:Catalog.publish", "after"),
    ("uringd.uploads:Upload._close", "before"),
]


@pytest.mark.parametrize(("point", "when"), BEFORE_RENAME)
async def test_an_upload_killed_before_its_rename_goes_on(
    tmp_path: Path,
    doomed: Killed,
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    point: str,
    when: str,
) -> None:
    data = content(SIZE)
    with doomed(point, when) as process:
        await upload_until_killed(tmp_path, open_peer, data)
        assert process.wait() == -9
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        assert [name for name in daemon.published if name != "a"] == []
        reply = await peer.resume(UPLOAD_ID, 1)
        [part] = reply.durable
        assert (part.offset, part.length, part.crc32c) == (0, SIZE, crc32c(data))
        await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))
        assert (daemon.root / "a/file").read_bytes() == data


@pytest.mark.parametrize("durability", [Durability.WRITTEN, Durability.PUBLISHED])
@pytest.mark.parametrize(("point", "when"), AFTER_RENAME)
async def test_an_upload_killed_after_its_rename_is_published(
    tmp_path: Path,
    doomed: Killed,
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    point: str,
    when: str,
    durability: Durability,
) -> None:
    data = content(SIZE)
    with doomed(point, when) as process:
        await upload_until_killed(tmp_path, open_peer, data, durability=int(durability))
        assert process.wait() == -9
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        assert daemon.spool == []
        assert (daemon.root / "a/file").read_bytes() == data
        reply = await peer.resume(UPLOAD_ID, 1)
        receipt = await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))
        assert (receipt.upload_id, receipt.name) == (UPLOAD_ID, "a/file")
        assert receipt.durability >= durability
        assert receipt.backend and receipt.transport == "unix"
        assert await peer.commit(reply.upload, SIZE) == receipt


async def test_a_file_that_was_renamed_is_synced_before_its_receipt_is_recorded(
    tmp_path: Path,
    doomed: Killed,
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the server that was killed had come to its fsyncs nobody knows."""
    with doomed("uringd.catalog:Catalog.publish", "before") as process:
        await upload_until_killed(tmp_path, open_peer, content(SIZE))
        assert process.wait() == -9
    root = tmp_path / "root"
    synced: list[int] = []
    original = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        original(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    async with serving():
        pass
    file, directory, above = (path.stat().st_ino for path in (root / "a/file", root / "a", root))
    assert synced.index(file) < synced.index(directory)
    assert above in synced


@pytest.mark.parametrize(
    ("point", "when", "kept"),
    [
        ("uringd.catalog:Catalog.add", "before", False),
        ("uringd.catalog:Catalog.add", "after", True),
        ("uringd.catalog:Catalog.record_progress", "before", True),
        ("uringd.catalog:Catalog.record_progress", "after", True),
    ],
)
async def test_an_upload_killed_while_it_fills_is_as_durable_as_its_record(
    tmp_path: Path,
    doomed: Killed,
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    point: str,
    when: str,
    *,
    kept: bool,
) -> None:
    data = content(SIZE)
    with doomed(point, when) as process:
        await upload_until_killed(tmp_path, open_peer, data)
        assert process.wait() == -9
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        if not kept:
            error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID))
            assert error.code == ErrorCode.NOT_FOUND
            assert daemon.spool == []
            return
        reply = await peer.resume(UPLOAD_ID, 1)
        recorded = when == "after" and "progress" in point
        assert sum(part.length for part in reply.durable) == (SIZE if recorded else 0)
        await peer.fill(reply.upload, data, SIZE if recorded else 0)
        await peer.commit(reply.upload, SIZE, crc32c=crc32c(data))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_abort_that_was_cut_off_is_finished(
    tmp_path: Path,
    doomed: Killed,
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    when: str,
) -> None:
    with doomed("uringd.catalog:Catalog.remove", when) as process:
        await upload_until_killed(tmp_path, open_peer, content(SIZE), end="abort")
        assert process.wait() == -9
    with capture_logs() as events:
        async with serving() as daemon:
            assert daemon.spool == []
            assert await daemon.server.catalog.uploads() == []
    removed = [event["outcome"] for event in events if event["event"] == "upload"]
    assert removed == (["removed"] if when == "before" else [])


async def test_a_file_that_took_the_name_is_not_taken_for_the_upload(
    tmp_path: Path, doomed: Killed, serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    data = content(SIZE)
    with doomed("uringd.catalog:Catalog.publish", "before") as process:
        await upload_until_killed(tmp_path, open_peer, data)
        assert process.wait() == -9
    path = tmp_path / "root/a/file"
    other = tmp_path / "root/a/other"
    other.write_bytes(data)
    other.rename(path)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID))
        assert error.code == ErrorCode.NOT_FOUND
        assert await daemon.server.catalog.uploads() == []
    assert path.read_bytes() == data


async def test_bytes_that_a_power_cut_took_are_not_taken_for_the_upload(
    tmp_path: Path, doomed: Killed, serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    """At the level WRITTEN a rename may outlive the bytes: the same inode, other content."""
    data = content(SIZE)
    with doomed("uringd.catalog:Catalog.publish", "before") as process:
        await upload_until_killed(tmp_path, open_peer, data, durability=int(Durability.WRITTEN))
        assert process.wait() == -9
    with (tmp_path / "root/a/file").open("r+b") as file:
        file.write(bytes(4096))
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID))
        assert error.code == ErrorCode.NOT_FOUND
        assert daemon.spool == []


async def test_a_weak_receipt_is_forgotten_with_its_file(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        for name, level in [("weak", Durability.DURABLE), ("strong", Durability.PUBLISHED)]:
            handle = await peer.create(name, durability=int(level))
            await peer.fill(handle, content(SLOT_BYTES))
            await peer.commit(handle, SLOT_BYTES)
        (daemon.root / "weak").unlink()
        (daemon.root / "strong").unlink()
    with capture_logs() as events:
        async with serving():
            pass
    ends = [(e["outcome"], e["name"]) for e in events if e["event"] == "upload"]
    assert ends == [("lost", "weak")]


@pytest.mark.parametrize("level", [Durability.WRITTEN, Durability.DURABLE])
@pytest.mark.parametrize("bytes_survived", [True, False])
async def test_a_weak_receipt_whose_rename_was_undone_is_published_again(
    serving: Serving,
    open_peer: OpenPeer,
    content: Content,
    level: Durability,
    bytes_survived: bool,  # noqa: FBT001
) -> None:
    """What was durable is not thrown away with the name: its client may not know its Receipt."""
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("sub/file", durability=int(level), upload_id=UPLOAD_ID)
        await peer.fill(handle, content(SLOT_BYTES))
        receipt = await peer.commit(handle, SLOT_BYTES)
    # What a power cut may leave of a rename whose directory was not fsynced.
    spooled = daemon.root / ".uringd/spool" / f"{UPLOAD_ID}.part"
    (daemon.root / "sub/file").rename(spooled)
    if not bytes_survived:
        spooled.write_bytes(bytes(SLOT_BYTES if level is Durability.WRITTEN else 1))
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        assert daemon.spool == []
        if bytes_survived:
            reply = await peer.resume(UPLOAD_ID)
            assert await peer.commit(reply.upload, SLOT_BYTES) == receipt
            assert (daemon.root / "sub/file").read_bytes() == content(SLOT_BYTES)
        else:
            error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID))
            assert error.code == ErrorCode.NOT_FOUND
            assert daemon.published == ["sub"]


async def test_a_durable_commit_has_a_durable_name_before_its_rename(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    """Nothing is fsynced behind the rename: one that is undone has to leave the spool file."""
    ring = SimulatedRing(1)
    async with serving(ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("file", durability=int(Durability.DURABLE))
        await peer.fill(handle, content(SLOT_BYTES))
        await peer.commit(handle, SLOT_BYTES)
        spool_fd = daemon.server.root.spool_fd
    done = [operation for operation, _ in ring.history]
    renamed = [operation.opcode for operation in done].index(Opcode.RENAMEAT)
    assert any(op.opcode is Opcode.FSYNC and op.fd == spool_fd for op in done[:renamed])


async def test_a_spool_file_that_was_taken_away_or_cut_is_no_upload_any_more(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    ids = ["aa" * 16, "bb" * 16]
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        for upload_id in ids:
            handle = await peer.create(upload_id, upload_id=upload_id)
            await peer.fill(handle, content(SIZE))
    spool = daemon.root / ".uringd/spool"
    (spool / f"{ids[0]}.part").unlink()
    os.truncate(spool / f"{ids[1]}.part", SLOT_BYTES)
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        for upload_id in ids:
            error = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=upload_id))
            assert error.code == ErrorCode.NOT_FOUND
        assert daemon.spool == []
        assert await daemon.server.catalog.uploads() == []


async def test_a_spool_file_that_a_dying_server_holds_is_waited_for(
    serving: Serving, open_peer: OpenPeer, content: Content
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("file", upload_id=UPLOAD_ID)
        await peer.fill(handle, content(SIZE))
    path = daemon.root / ".uringd/spool" / f"{UPLOAD_ID}.part"
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
            for frame_type, message in [
                (FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID)),
                (FrameType.ABORT, pb.Abort(upload_id=UPLOAD_ID)),
            ]:
                error = await peer.refusal(frame_type, message)
                assert (error.code, error.retryable) == (ErrorCode.BUSY, True)
            fcntl.flock(held, fcntl.LOCK_UN)
            reply = await peer.resume(UPLOAD_ID)
            await peer.commit(reply.upload, SIZE)


async def test_a_catalog_of_a_newer_server_is_refused_in_one_sentence(
    tmp_path: Path, serving: Serving
) -> None:
    async with serving():
        pass
    path = tmp_path / "root/.uringd/catalog.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CatalogError, match="newer uringd"):
        async with serving():
            pass
