"""The client's shared memory, against a real server, over whole connections and broken ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.uringd.client.test_resuming import Bytes, cut_off
from uringd.client import Receipt, connect
from uringd.errors import ClientError, RefusedError
from uringd.wire import ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, RunClient
    from tests.uringd.conftest import Daemon, Serving
    from uringd.client import Transport
    from uringd.urls import Url

Content = Callable[[int], bytes]
Way = Callable[..., Coroutine[None, None, Receipt]]

SLOT_BYTES = 64 << 10
LENGTH = 40 * SLOT_BYTES + 100
MODES: tuple[Transport, ...] = ("copy", "sealed", "slab")

pytestmark = pytest.mark.usefixtures("needs_io_uring")


@pytest.fixture
async def daemon(serving: Serving) -> AsyncIterator[Daemon]:
    async with serving() as running:
        yield running


async def by_writing(
    url: Url, data: bytes, mode: Transport, lanes: int = 1, retry_s: float = 60
) -> Receipt:
    async with (
        connect(url, transport=mode, retry_s=retry_s) as client,
        client.upload("file", lanes=lanes) as upload,
    ):
        for start in range(0, len(data), 100_000):
            await upload.write(data[start : start + 100_000])
        return await upload.commit()


async def from_file(url: Url, data: bytes, mode: Transport, lanes: int = 1) -> Receipt:
    async with (
        connect(url, transport=mode) as client,
        client.upload("file", len(data), lanes=lanes) as upload,
    ):
        await upload.send_file(Bytes(data))
        return await upload.commit()


async def by_slots(url: Url, data: bytes, mode: Transport, lanes: int = 1) -> Receipt:
    async with (
        connect(url, transport=mode) as client,
        client.upload("file", lanes=lanes) as upload,
    ):
        at = 0
        while at < len(data):
            async with upload.slot() as slot:
                slot.length = min(len(slot.view), len(data) - at)
                slot.view[: slot.length] = data[at : at + slot.length]
            at += slot.length
        return await upload.commit()


WAYS = [by_writing, from_file, by_slots]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("mode", MODES)
async def test_an_upload_goes_through_shared_memory(
    daemon: Daemon,
    run_client: RunClient,
    content: Content,
    count_descriptors: Callable[[], int],
    mode: Transport,
    way: Way,
    lanes: int,
) -> None:
    data = content(LENGTH)
    before = count_descriptors()
    receipt = await run_client(lambda: way(daemon.unix, data, mode, lanes))
    assert (receipt.transport, receipt.crc32c) == (mode, f"{crc32c(data):08x}")
    assert receipt.sent_bytes == len(data)
    assert (daemon.root / "file").read_bytes() == data
    assert count_descriptors() <= before + 8, "only the server's ends of what is being closed"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("mode", MODES)
async def test_an_upload_survives_lost_connections(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    mode: Transport,
    way: Way,
) -> None:
    """Memory is attached anew each time, and what was not durable is placed again."""
    data = content(LENGTH)

    def rule(frame: Frame) -> bytes:
        for count in (3, 17, 30):
            if frame.is_a(FrameType.PLACED, count):
                frame.cut(20 if count == 17 else 0)
        return cut_off(FrameType.COMMIT)(frame)

    wire = await open_wire(daemon, rule, descriptors=True)
    receipt = await run_client(lambda: way(wire.url, data, mode))
    assert (receipt.crc32c, receipt.resumed) == (f"{crc32c(data):08x}", 4)
    assert receipt.transport == mode
    assert (daemon.root / "file").read_bytes() == data


async def test_a_lane_joins_its_upload_before_it_attaches_memory(
    daemon: Daemon, open_wire: OpenWire, content: Content
) -> None:
    """A session with memory attached could not go to the process that holds the upload."""
    wire = await open_wire(daemon, descriptors=True)
    await from_file(wire.url, content(LENGTH), "copy", 2)
    said = [each.header.type for each in wire.seen if each.from_client and each.connection == 1]
    assert said[:3] == [FrameType.HELLO, FrameType.RESUME, FrameType.ATTACH]


async def test_a_slab_that_is_read_back_says_so(
    daemon: Daemon, run_client: RunClient, content: Content
) -> None:
    data = content(LENGTH)

    async def upload() -> Receipt:
        async with (
            connect(daemon.unix, transport="slab", read_back=True) as client,
            client.upload("file") as upload,
        ):
            await upload.write(data)
            return await upload.commit()

    assert (await run_client(upload)).transport == "slab-read-back"
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_an_upload_goes_on_with_a_slab_of_shorter_slots(
    serving: Serving, open_wire: OpenWire, content: Content, way: Way
) -> None:
    """What was cut for longer ones is cut again: another server, or its settings, came between."""
    data = content(LENGTH)
    async with serving(slab_slot_bytes=4 * SLOT_BYTES) as daemon:

        def rule(frame: Frame) -> bytes:
            if frame.is_a(FrameType.PLACED, 4):
                settings = replace(daemon.server.settings, slab_slot_bytes=SLOT_BYTES)
                daemon.server.settings = settings
                frame.cut()
            return frame.whole

        wire = await open_wire(daemon, rule, descriptors=True)
        receipt = await way(wire.url, data, "slab")
        assert (receipt.crc32c, receipt.resumed) == (f"{crc32c(data):08x}", 1)
        assert (daemon.root / "file").read_bytes() == data


async def test_only_a_slab_is_read_back(daemon: Daemon) -> None:
    with pytest.raises(ValueError, match="read_back"):
        async with connect(daemon.unix, transport="copy", read_back=True):
            pass


async def test_auto_is_the_stream(daemon: Daemon, content: Content) -> None:
    urls: list[tuple[Url, str]] = [(daemon.unix, "unix"), (daemon.tcp, "tcp")]
    for url, transport in urls:
        async with connect(url) as client, client.upload(transport) as upload:
            await upload.write(content(LENGTH))
            assert (await upload.commit()).transport == transport


@pytest.mark.parametrize("mode", ["copy", "slab"])
async def test_a_mode_whose_descriptors_are_lost_on_the_way_is_refused(
    daemon: Daemon, open_wire: OpenWire, content: Content, mode: Transport
) -> None:
    """As by a proxy."""
    wire = await open_wire(daemon)
    with pytest.raises(ClientError, match=r"descriptor|lost on the way"):
        await by_writing(wire.url, content(LENGTH), mode, retry_s=0)
    assert daemon.published == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_mode_that_cannot_be_had_is_refused_with_the_reason(
    daemon: Daemon, mode: Transport
) -> None:
    with pytest.raises(RefusedError, match="needs a Unix socket") as caught:
        async with connect(daemon.tcp, transport=mode):
            pass
    assert caught.value.code is ErrorCode.UNSUPPORTED


async def test_a_server_without_it_is_asked_in_vain(serving: Serving) -> None:
    async with serving(slab_bytes_max=0) as daemon:
        with pytest.raises(RefusedError, match="does not offer slab"):
            async with connect(daemon.unix, transport="slab"):
                pass


async def test_slabs_that_are_used_up_are_refused(serving: Serving, content: Content) -> None:
    async with (
        serving(slab_bytes_max=8 * SLOT_BYTES) as daemon,
        connect(daemon.unix, transport="slab") as client,
        client.upload("one") as upload,
    ):
        await upload.write(content(SLOT_BYTES))
        with pytest.raises(RefusedError, match="slab_bytes_max"):
            await by_writing(daemon.unix, content(LENGTH), "slab")


@pytest.mark.parametrize("mode", [*MODES, "socket"])
async def test_slots_of_any_length_mix_with_writes(
    daemon: Daemon, content: Content, mode: Transport
) -> None:
    data = content(5 * SLOT_BYTES + 5)
    at = 0
    async with connect(daemon.unix, transport=mode) as client, client.upload("file") as upload:
        for length in (SLOT_BYTES, 100, SLOT_BYTES, SLOT_BYTES - 100, SLOT_BYTES, 0, SLOT_BYTES):
            async with upload.slot() as slot:
                slot.view[:length] = data[at : at + length]
                slot.length = length
            at += length
        await upload.write(data[at:])
        await upload.commit()
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("mode", [*MODES, "socket"])
async def test_a_view_that_somebody_keeps_is_no_hindrance(
    daemon: Daemon, content: Content, mode: Transport
) -> None:
    """Memory that is mapped for writing cannot be sealed: then other memory is."""
    data = content(12 * SLOT_BYTES)
    kept = []
    async with connect(daemon.unix, transport=mode) as client, client.upload("file") as upload:
        for at in range(0, len(data), SLOT_BYTES):
            async with upload.slot() as slot:
                kept.append(slot.view[5:10])
                slot.view[:] = data[at : at + SLOT_BYTES]
                slot.length = SLOT_BYTES
        await upload.commit()
    kept.clear()
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("mode", [*MODES, "socket"])
async def test_a_slot_that_is_left_by_an_exception_is_not_sent(
    daemon: Daemon, content: Content, mode: Transport
) -> None:
    data = content(3 * SLOT_BYTES)
    async with connect(daemon.unix, transport=mode) as client, client.upload("file") as upload:
        for _ in range(12):
            with pytest.raises(KeyError):
                async with upload.slot() as slot:
                    slot.length = SLOT_BYTES
                    raise KeyError
        with pytest.raises(ValueError, match="cannot have"):
            async with upload.slot() as slot:
                slot.length = SLOT_BYTES + 1
        await upload.write(data)
        await upload.commit()
    assert (daemon.root / "file").read_bytes() == data


async def test_a_client_reads_the_memory_that_the_disk_reads(daemon: Daemon) -> None:
    """With a slab a slot is the server's own memory, of which the kernel says so."""
    async with connect(daemon.unix, transport="slab") as client, client.upload("file") as upload:
        async with upload.slot() as slot:
            assert "memfd:uringd slab" in Path("/proc/self/maps").read_text()
            slot.view[:] = bytes(len(slot.view))
            slot.length = len(slot.view)
        await upload.commit()
    assert os.path.getsize(daemon.root / "file") == SLOT_BYTES
