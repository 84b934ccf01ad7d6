"""Chunks that leave right from a file: what the kernel hands over, and what happens when the file
is not what it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from uringd.client import connect
from uringd.client.lane import REFUSALS_MAX
from uringd.errors import RefusedError, SourceError
from uringd.source import Source
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, RunClient
    from tests.uringd.conftest import Daemon

Content = Callable[[int], bytes]
Sendfile = Callable[[int, int, int, int], int]
SendBy = Callable[[Sendfile], None]

SLOT_BYTES = 64 << 10
SIZE = 20 * SLOT_BYTES + 77


@pytest.fixture
def source(tmp_path: Path, content: Content) -> Iterator[Source]:
    path = tmp_path / "source"
    path.write_bytes(content(SIZE))
    with Source(str(path)) as source:
        yield source


@pytest.fixture
def send_by(monkeypatch: pytest.MonkeyPatch) -> SendBy:
    """Have sendfile(2) replaced, as the client uses it."""
    return lambda sendfile: monkeypatch.setattr("uringd.client.file_chunk.os.sendfile", sendfile)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_no_byte_of_a_file_passes_through_memory_of_ours(
    daemon: Daemon,
    run_client: RunClient,
    source: Source,
    content: Content,
    send_by: SendBy,
    transport: str,
) -> None:
    handed_over = 0
    sendfile = os.sendfile

    def counting(*args: int) -> int:
        nonlocal handed_over
        count = sendfile(*args)
        handed_over += count
        return count

    send_by(counting)
    url = daemon.tcp if transport == "tcp" else daemon.unix

    async def main() -> None:
        async with connect(url) as client, client.upload("file", SIZE) as upload:
            await upload.send_file(source)
            await upload.commit()

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == content(SIZE)
    assert handed_over == SIZE


@pytest.mark.parametrize("done", [0, 1, 5000])
async def test_what_sendfile_cannot_send_is_read_and_sent(
    daemon: Daemon,
    run_client: RunClient,
    source: Source,
    content: Content,
    send_by: SendBy,
    done: int,
) -> None:
    sendfile = os.sendfile
    sent: dict[int, int] = {}

    def failing(out: int, fd: int, position: int, count: int) -> int:
        chunk = position // SLOT_BYTES
        if sent.get(chunk, 0) >= done:
            raise OSError(errno.EINVAL, "this file system has none")
        sent[chunk] = sendfile(out, fd, position, min(count, done))
        return sent[chunk]

    send_by(failing)

    async def main() -> None:
        async with connect(daemon.tcp) as client, client.upload("file") as upload:
            await upload.send_file(source)
            await upload.commit()

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == content(SIZE)


def cutting_short(path: Path, chunk: int) -> Sendfile:
    """Shorten the file when a chunk of it has begun to leave."""
    sendfile = os.sendfile

    def cut(out: int, fd: int, position: int, count: int) -> int:
        if position // SLOT_BYTES == chunk:
            os.truncate(path, position + 100)
        return sendfile(out, fd, position, count)

    return cut


async def test_a_file_that_gets_shorter_in_mid_chunk_costs_the_upload_and_not_the_connection(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    source: Source,
    tmp_path: Path,
    send_by: SendBy,
) -> None:
    send_by(cutting_short(tmp_path / "source", 7))
    wire = await open_wire(daemon)

    async def main() -> None:
        async with connect(wire.url) as client:
            with pytest.raises(SourceError, match="another size now"):
                async with client.upload("file") as upload:
                    await upload.send_file(source)
            async with client.upload("next") as upload:
                await upload.write(b"next")
                await upload.commit()

    await run_client(main)
    assert daemon.published == ["next"]
    assert not daemon.spool
    assert wire.connections == 1


async def test_a_chunk_that_changes_as_it_leaves_is_never_published(
    daemon: Daemon, run_client: RunClient, source: Source, tmp_path: Path, send_by: SendBy
) -> None:
    path = tmp_path / "source"
    sendfile = os.sendfile

    def change(out: int, fd: int, position: int, count: int) -> int:
        if position == 5 * SLOT_BYTES:
            with path.open("r+b") as file:
                file.seek(position)
                file.write(os.urandom(8))
        return sendfile(out, fd, position, count)

    send_by(change)

    async def main() -> None:
        with pytest.raises(SourceError, match="changed while it was sent"):
            async with connect(daemon.unix) as client, client.upload("file") as upload:
                await upload.send_file(source)
                await upload.commit()

    await run_client(main)
    assert not daemon.published


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_a_chunk_that_left_wrong_is_sent_again(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    source: Source,
    content: Content,
    transport: str,
) -> None:
    def rule(frame: Frame) -> bytes:
        whole = bytearray(frame.whole)
        if frame.is_a(FrameType.DATA, 3):
            whole[64] ^= 1
        return bytes(whole)

    wire = await open_wire(daemon, rule)

    async def main() -> int:
        async with connect(wire.url) as client, client.upload("file") as upload:
            await upload.send_file(source)
            return (await upload.commit()).sent_bytes

    assert await run_client(main) == SIZE + SLOT_BYTES
    assert (daemon.root / "file").read_bytes() == content(SIZE)


async def test_a_way_that_damages_every_copy_of_a_chunk_ends_the_upload(
    daemon: Daemon, open_wire: OpenWire, source: Source
) -> None:
    def rule(frame: Frame) -> bytes:
        whole = bytearray(frame.whole)
        if frame.header.type is FrameType.DATA and frame.header.offset == 0:
            whole[64] ^= 1
        return bytes(whole)

    wire = await open_wire(daemon, rule)
    with pytest.raises(RefusedError) as caught:
        async with connect(wire.url) as client, client.upload("file") as upload:
            await upload.send_file(source)
            await upload.commit()
    assert caught.value.code is ErrorCode.BAD_CHECKSUM
    begun = [frame for frame in wire.sent(FrameType.DATA) if frame.header.offset == 0]
    assert len(begun) == REFUSALS_MAX + 1


async def test_a_chunk_whose_sending_was_cancelled_is_sent_again_over_another_connection(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    source: Source,
    content: Content,
    send_by: SendBy,
) -> None:
    wire = await open_wire(daemon)
    scopes: list[anyio.CancelScope] = []
    sendfile = os.sendfile

    def stop(out: int, fd: int, position: int, count: int) -> int:
        if scopes and position:
            scopes.pop().cancel()
            raise BlockingIOError
        return sendfile(out, fd, position, min(count, 1000))

    send_by(stop)

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", SLOT_BYTES) as upload:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await upload.send_file(source)
            assert scope.cancelled_caught
            await upload.commit()

    source.length = SLOT_BYTES
    await run_client(main)
    assert (daemon.root / "file").read_bytes() == content(SIZE)[:SLOT_BYTES]
    assert wire.connections == 2
