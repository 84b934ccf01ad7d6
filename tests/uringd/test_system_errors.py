"""Errors of the system in the middle of a request: it is answered, and what is left can be removed.

Each was found by the n-th operation loop (tests/nth), and would be again.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType
from uringio.lowlevel import Opcode
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import OpenPeer, Serving

UPLOAD_ID = "0123456789abcdef" * 2


async def test_a_commit_without_a_free_descriptor_is_answered(
    serving: Serving, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was cut instead, and the next COMMIT found the record of this one."""

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with serving() as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", none_left)
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(), handle)
        assert refusal.code is ErrorCode.IO
        assert "EMFILE" in refusal.text
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
        assert (daemon.spool, daemon.published) == ([], [])


@pytest.mark.parametrize("features", [("resume",), ()])
async def test_an_abort_that_cannot_remove_the_file_says_so_and_can_be_asked_again(
    serving: Serving, open_peer: OpenPeer, features: tuple[str, ...]
) -> None:
    """It was answered as done, and the file stayed in the spool without a record."""
    ring = SimulatedRing(faults=[Fault(Opcode.UNLINKAT, result=-errno.EIO)])
    async with serving(ring) as daemon, open_peer(daemon.unix, *features) as peer:
        handle = await peer.create(upload_id=UPLOAD_ID, size=4096)
        await peer.fill(handle, bytes(4096))
        refusal = await peer.refusal(FrameType.ABORT, pb.Abort(), handle)
        assert refusal.code is ErrorCode.IO
        assert daemon.spool == [f"{UPLOAD_ID}.part"]
        await peer.ask(FrameType.ABORT, pb.Abort(upload_id=UPLOAD_ID))
        assert daemon.spool == []
        assert await daemon.server.catalog.uploads() == []
        assert daemon.server.registry._quota.used == 0
