"""What an upload says, and does, once it has come to an end: nothing is done twice."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import CREDIT, SLOT_BYTES
from tests.uringd.sharing import ALL_SEALS, memory_of, place
from uringd.reading_back import start_read_back
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ByteRange, ErrorCode, FrameType, UploadState, crc32c
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringd.conftest import Daemon, OpenPeer, Serving
    from uringio.exceptions import OperationError

UPLOAD_ID = "0123456789abcdef" * 2
DATA = b"d" * SLOT_BYTES


async def test_a_published_upload_can_be_neither_aborted_nor_suspended(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        upload = daemon.uploads[UPLOAD_ID]
        states = [upload.state]
        await peer.commit(handle, SLOT_BYTES)
        states.append(upload.state)
        assert states == [UploadState.RECEIVING, UploadState.PUBLISHED]
        assert not await upload.abort()
        assert not await upload.suspend()
        assert (daemon.root / "file").read_bytes() == DATA


async def test_an_upload_that_was_aborted_is_not_aborted_again(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    """Its descriptor is somebody else's by then."""
    async with open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        upload = daemon.uploads[UPLOAD_ID]
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        await peer.create("other", upload_id="ab" * 16)
        assert await upload.abort()
        assert daemon.spool == [f"{'ab' * 16}.part"]


@pytest.mark.parametrize("short", [0, 100])
async def test_what_cannot_be_read_back_to_its_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    fault = Fault(Opcode.READ, short=short) if short else Fault(Opcode.READ, result=-errno.EBADF)
    heard: list[OperationError | None] = []
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        async with run_ring(SimulatedRing(1, faults=[fault]), 2, 4096) as ring:
            slot = await ring.slots.acquire()
            chunk = ByteRange(0, 4096, crc32c(bytes(4096)))
            start_read_back(ring.reactor, file.fileno(), "file", slot, chunk, heard.append)
            start_read_back(ring.reactor, file.fileno(), "file", slot, chunk, heard.append)
            await ring.reactor.wait_idle()
            assert len(heard) == 2 and heard.count(None) == 1, "the second is read whole"
            [failure] = filter(None, heard)
            assert failure.errno == (errno.EIO if short else errno.EBADF)
            with monkeypatch.context() as patch:
                patch.setattr(ring.reactor, "_closing", True)
                start_read_back(ring.reactor, file.fileno(), "file", slot, chunk, heard.append)
            assert heard[-1] is not None and "ring is closed" in str(heard[-1])
            ring.slots.release(slot)


async def test_a_chunk_in_sealed_memory_that_was_durable_before_a_restart_is_compared(
    needs_io_uring: None, serving: Serving, open_peer: OpenPeer
) -> None:
    """By what is read back into memory of our own: the client's cannot be written to."""
    async with serving() as daemon, open_peer(daemon.unix, "resume", "sealed") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        await peer.fill(handle, DATA)
        await peer.ask(FrameType.SYNC, pb.Sync(), handle)
    other = b"o" * SLOT_BYTES
    async with serving() as daemon, open_peer(daemon.unix, "resume", "sealed") as peer:
        reply = await peer.resume(UPLOAD_ID)
        for data in (DATA, other):
            fd = memory_of(data, ALL_SEALS)
            await place(peer, reply.upload, 0, data, 0, [fd])
            os.close(fd)
            await peer.wait_credit(CREDIT)
            if data is DATA:
                assert not peer.notices
        _, error = peer.notices.popleft()
        assert (error.code, error.offset) == (ErrorCode.CONFLICT, 0)
        await peer.commit(reply.upload, SLOT_BYTES, crc32c=crc32c(DATA))
