"""Clients that close the half of their connection that they would receive by, and send on.

A Unix socket tells the server with its next answer (EPIPE); TCP has no way to say it, so what the
server sends goes nowhere. Either way nothing of what arrived is torn, and nobody else waits.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.uringd.conftest import SLOT_BYTES, SLOTS
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import Daemon, OpenPeer, Until
    from tests.uringd.hostile.conftest import Bystander

    Content = Callable[[int], bytes]

UPLOAD_ID = "0123456789abcdef" * 2
SENT = 4


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_what_it_committed_is_whole_or_not_there_and_others_are_served(
    daemon: Daemon,
    open_peer: OpenPeer,
    bystander: Bystander,
    content: Content,
    until: Until,
    count_descriptors: Callable[[], int],
    transport: str,
) -> None:
    before, data = count_descriptors(), content(SENT * SLOT_BYTES)
    url = daemon.unix if transport == "unix" else daemon.tcp
    async with open_peer(url, "resume") as peer:
        handle = await peer.create(upload_id=UPLOAD_ID)
        peer.stream.socket.shutdown(socket.SHUT_RD)
        frames = []
        for offset in range(0, len(data), SLOT_BYTES):
            chunk = data[offset : offset + SLOT_BYTES]
            frames += [
                peer.connection.send_data_header(handle, offset, len(chunk), crc32c(chunk)),
                chunk,
            ]
        frames.append(peer.request(FrameType.COMMIT, pb.Commit(size=len(data)), handle))
        for frame in frames:
            try:
                await peer.send(frame)
            except OSError:
                break
        await bystander(daemon.unix, daemon.root)
    await until(lambda: count_descriptors() == before and not daemon.server.sessions)
    assert daemon.free_slots == SLOTS
    if transport == "tcp" or (daemon.root / "file").exists():
        assert (daemon.root / "file").read_bytes() == data
    else:
        async with open_peer(daemon.unix, "resume") as peer:
            resumed = await peer.resume(UPLOAD_ID)
            for part in resumed.durable:
                assert part.crc32c == crc32c(data[part.offset : part.offset + part.length])
            await peer.ask(FrameType.ABORT, pb.Abort(upload_id=UPLOAD_ID))
    assert daemon.spool == []
