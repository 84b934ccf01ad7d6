"""The malformed vectors, sent to our server as they are: it answers with the code they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uringd.conformance.peer import refused
from uringd.conformance.target import Target
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import HEADER_BYTES, ErrorCode, FrameType, decode_header

if TYPE_CHECKING:
    from tests.uringd.conftest import Serving
    from uringd.conformance.peer import Peer

DIRECTORY = Path(__file__).resolve().parents[3] / "protos" / "vectors"
VECTORS: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for path in sorted(DIRECTORY.glob("*.json"))
    for vector in json.loads(path.read_text())
}
ANSWERED_IN_TIME = {"ping-before-the-reply", "cookie-in-use"}
"""A server that answers before it reads on cannot see these: PH-005 and RQ-004 have both ends."""

CHUNK_BYTES_MAX = 1 << 20
"""What `hello-reply` says."""


def frame_of(name: str) -> bytes:
    return bytes.fromhex("".join(VECTORS[name]["frame"]))


async def say(peer: Peer, name: str) -> None:
    """Send a valid frame of a client, and take its reply where it asks for one."""
    frame = frame_of(name)
    header = decode_header(frame[:HEADER_BYTES])
    if header.is_request:
        peer.watch.requests.begin(header.cookie, header.type, header.upload)
    await peer.send(frame)
    if header.is_request:
        await peer.reply(header.cookie)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, vector in VECTORS.items()
        if "error" in vector and vector["direction"] == "C" and name not in ANSWERED_IN_TIME
    ],
)
async def test_it_is_answered_with_its_code(name: str, serving: Serving) -> None:
    vector = VECTORS[name]
    async with serving(slot_bytes=CHUNK_BYTES_MAX) as daemon:
        async with Target(daemon.unix).connection() as peer:
            for before in vector["after"]:
                if VECTORS[before]["direction"] == "C":
                    await say(peer, before)
            await peer.send(frame_of(name))
            if vector.get("end"):
                await peer.send_eof()
            await peer.ended(ErrorCode[vector["error"]])
        # One whose session had `resume` in force is kept: this server is to be left empty.
        async with Target(daemon.unix).session() as other:
            reply: pb.ListReply = await other.ask(FrameType.LIST, pb.List(uploads=True))
            for upload in reply.uploads:
                await _abort(other, upload.upload_id)


async def _abort(peer: Peer, upload_id: str) -> None:
    """Abort an upload, or find it gone: without `resume` its session's end did that."""
    frame, cookie = peer.frame(FrameType.ABORT, pb.Abort(upload_id=upload_id))
    await peer.send(frame)
    answer = await peer.answer(cookie)
    if answer.type is FrameType.ERROR:
        refused(answer, ErrorCode.NOT_FOUND)
