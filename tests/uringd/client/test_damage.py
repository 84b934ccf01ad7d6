"""Chunks that arrive otherwise than they left: what is sent again, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from uringd.client import connect
from uringd.errors import RefusedError
from uringd.wire import PAGE_BYTES, ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, Rule, RunClient
    from tests.uringd.conftest import Daemon, Serving

Content = Callable[[int], bytes]

CHUNK_BYTES = 4 * PAGE_BYTES


def damage(frame: Frame, *positions: int) -> bytes:
    whole = bytearray(frame.whole)
    for position in positions:
        whole[64 + position] ^= 1
    return bytes(whole)


def damaging(count: int, *positions: int) -> Rule:
    """Damage the nth chunk."""

    def rule(frame: Frame) -> bytes:
        return damage(frame, *positions) if frame.is_a(FrameType.DATA, count) else frame.whole

    return rule


@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_damaged_chunk_is_sent_again_and_no_other(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content, lanes: int
) -> None:
    wire = await open_wire(daemon, damaging(5, 0))
    slot_bytes = 64 << 10
    data = content(20 * slot_bytes + 1)

    async def main() -> int:
        async with connect(wire.url) as client, client.upload("file", lanes=lanes) as upload:
            await upload.write(data)
            return (await upload.commit()).sent_bytes

    sent_bytes = await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert sent_bytes == len(data) + slot_bytes
    assert not wire.sent(FrameType.ERROR, reply=True)[1:]


@pytest.mark.parametrize(
    "positions", [[0], [PAGE_BYTES], [1, 3 * PAGE_BYTES], [4 * PAGE_BYTES - 1]]
)
async def test_with_page_checksums_only_the_bad_pages_are_sent_again(
    serving: Serving,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    positions: list[int],
) -> None:
    data = content(6 * CHUNK_BYTES)
    async with serving(slot_bytes=CHUNK_BYTES) as daemon:
        wire = await open_wire(daemon, damaging(2, *positions))

        async def main() -> int:
            async with (
                connect(wire.url) as client,
                client.upload("file", page_checksums=True) as upload,
            ):
                await upload.write(data)
                return (await upload.commit()).sent_bytes

        sent_bytes = await run_client(main)
        assert (daemon.root / "file").read_bytes() == data
    assert sent_bytes == len(data) + len(positions) * PAGE_BYTES


async def test_pages_that_were_damaged_and_a_connection_that_is_lost_are_mended_together(
    serving: Serving, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    data = content(6 * CHUNK_BYTES)

    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.DATA, 1):
            return damage(frame, PAGE_BYTES)
        if frame.is_a(FrameType.DATA, 4):
            frame.cut()
        return frame.whole

    async with serving(slot_bytes=CHUNK_BYTES) as daemon:
        wire = await open_wire(daemon, rule)

        async def main() -> None:
            async with (
                connect(wire.url) as client,
                client.upload("file", page_checksums=True) as upload,
            ):
                for start in range(0, len(data), CHUNK_BYTES):
                    await upload.write(data[start : start + CHUNK_BYTES])
                await upload.commit()

        await run_client(main)
        assert (daemon.root / "file").read_bytes() == data


async def test_a_wire_that_damages_everything_is_not_believed_for_ever(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient
) -> None:
    def rule(frame: Frame) -> bytes:
        return damage(frame, 0) if frame.header.type is FrameType.DATA else frame.whole

    wire = await open_wire(daemon, rule)

    async def main() -> None:
        with pytest.raises(RefusedError) as caught:
            async with connect(wire.url) as client, client.upload("file") as upload:
                await upload.write(bytes(64 << 10))
                await upload.commit()
        assert caught.value.code is ErrorCode.BAD_CHECKSUM

    await run_client(main)
    assert len(wire.sent(FrameType.DATA)) == 4
    assert (daemon.published, daemon.spool) == ([], [])
