"""A catalog that takes no more records: what had rested on the next one is not acknowledged.

The catalog itself refuses, by a trigger, so that everything above SQLite is the product's own.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, UploadState
from uringio.lowlevel import Opcode
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving

UPLOAD_ID = "0123456789abcdef" * 2
DATA = b"d" * SLOT_BYTES


async def refuse(daemon: Daemon, what: str) -> None:
    """Let one kind of statement fail from now on."""
    sql = f"CREATE TRIGGER refused BEFORE {what} BEGIN SELECT RAISE(ABORT, 'it is refused'); END"
    await daemon.server.catalog._run(lambda db: db.execute(sql))


async def allow(daemon: Daemon) -> None:
    await daemon.server.catalog._run(lambda db: db.execute("DROP TRIGGER refused"))


@pytest.mark.parametrize(
    ("what", "renamed"),
    [("INSERT ON commits", False), ("INSERT ON receipts", True)],
    ids=["of the commit", "of the receipt"],
)
async def test_a_commit_without_its_record_is_no_success(
    serving: Serving, open_peer: OpenPeer, what: str, *, renamed: bool
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        await refuse(daemon, what)
        commit = pb.Commit(size=SLOT_BYTES)
        for _ in range(2):
            error = await peer.refusal(FrameType.COMMIT, commit, handle)
            assert (error.code, "it is refused" in error.text) == (ErrorCode.IO, True)
        assert daemon.published == (["file"] if renamed else [])
        assert await daemon.server.catalog.find_receipt(UPLOAD_ID) is None
        stat = await peer.ask(FrameType.STAT, pb.Stat(upload_id=UPLOAD_ID))
        assert stat.upload.state == UploadState.BROKEN
        assert not daemon.uploads[UPLOAD_ID].lost_writes, "the bytes are not in question"
        await allow(daemon)
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert daemon.spool == []


async def test_a_sync_without_its_record_is_no_success(
    serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        await refuse(daemon, "INSERT ON ranges")
        error = await peer.refusal(FrameType.SYNC, pb.Sync(), handle)
        assert (error.code, "it is refused" in error.text) == (ErrorCode.IO, True)
        assert daemon.uploads[UPLOAD_ID].durable == 0
        await allow(daemon)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle)
        assert error.code == ErrorCode.IO, "what broke stays broken"
        assert daemon.published == []
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)


async def test_a_refused_name_whose_withdrawal_is_not_recorded_breaks_the_upload(
    serving: Serving, open_peer: OpenPeer
) -> None:
    """With the record of a commit that did not happen the upload must not go on."""
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        (daemon.root / "file").write_bytes(b"it was there first")
        await refuse(daemon, "DELETE ON commits")
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle)
        assert (error.code, "it is refused" in error.text) == (ErrorCode.IO, True)
        await allow(daemon)
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert (daemon.root / "file").read_bytes() == b"it was there first"
        assert daemon.spool == []


async def test_a_directory_that_has_the_name_is_told_as_a_name_that_is_taken(
    serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID, overwrite=True)
        await peer.fill(handle, DATA)
        (daemon.root / "file").mkdir()
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle)
        assert error.code == ErrorCode.EXISTS
        (daemon.root / "file").rmdir()
        assert (await peer.commit(handle, SLOT_BYTES)).size == SLOT_BYTES


async def test_a_rename_that_fails_breaks_the_upload(serving: Serving, open_peer: OpenPeer) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.RENAMEAT, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        for _ in range(2):
            error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=SLOT_BYTES), handle)
            assert (error.code, "rename" in error.text) == (ErrorCode.IO, True)
        assert daemon.published == []
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
