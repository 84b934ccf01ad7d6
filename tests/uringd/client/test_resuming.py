"""Connections that are lost at the worst moments, between a real client and a real server."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import pytest

from uringd.client import Receipt, connect
from uringd.errors import ConnectionLostError, RefusedError, SourceError
from uringd.urls import UnixUrl
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, Rule, RunClient
    from tests.uringd.conftest import Daemon, Until
    from uringd.client.supply import Care

Content = Callable[[int], bytes]
Way = Callable[[UnixUrl, bytes, int], Coroutine[None, None, Receipt]]

SLOT_BYTES = 64 << 10


class Bytes:
    """Bytes that can be read again, and that may change between two looks."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, view: memoryview, offset: int) -> None:
        view[:] = self.data[offset : offset + len(view)]

    def check_size(self) -> None:
        pass


class Trickle:
    """Bytes that come once."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def fill(self, view: memoryview, care: Care) -> int:
        if not self.data:
            return 0
        await care.keep_alive()
        piece, self.data = self.data[: len(view)], self.data[len(view) :]
        view[: len(piece)] = piece
        return len(piece)


def cut_off(frame_type: FrameType, count: int = 0) -> Rule:
    """Lose the reply to the nth request of a type, and the connection with it."""

    def rule(frame: Frame) -> bytes:
        if frame.is_a(frame_type, count, reply=True):
            frame.cut()
        return frame.whole

    return rule


async def upload_by_writing(url: UnixUrl, data: bytes, lanes: int = 1) -> Receipt:
    """Write in pieces that are no chunks, and sync once on the way."""
    async with connect(url) as client, client.upload("file", lanes=lanes) as upload:
        for start in range(0, len(data), 100_000):
            await upload.write(data[start : start + 100_000])
            if start == 500_000:
                await upload.sync()
        return await upload.commit()


async def upload_from_file(url: UnixUrl, data: bytes, lanes: int = 1) -> Receipt:
    async with connect(url) as client, client.upload("file", len(data), lanes=lanes) as upload:
        await upload.send_file(Bytes(data))
        await upload.sync()
        return await upload.commit()


async def upload_from_stream(url: UnixUrl, data: bytes, lanes: int = 1) -> Receipt:
    async with connect(url) as client, client.upload("file", lanes=lanes) as upload:
        await upload.send_from(Trickle(data))
        await upload.sync()
        return await upload.commit()


WAYS = [upload_by_writing, upload_from_file, upload_from_stream]


def check(daemon: Daemon, receipt: Receipt, data: bytes) -> None:
    assert (daemon.root / "file").read_bytes() == data
    assert (receipt.size, receipt.crc32c) == (len(data), f"{crc32c(data):08x}")
    assert receipt.sent_bytes >= len(data)
    assert daemon.published == ["file"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(
    "lost", [FrameType.CREATE, FrameType.SYNC, FrameType.COMMIT], ids=lambda lost: lost.name
)
async def test_a_lost_reply_costs_nothing_but_time(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    way: Way,
    lanes: int,
    lost: FrameType,
) -> None:
    wire = await open_wire(daemon, cut_off(lost))
    data = content(20 * SLOT_BYTES + 77)
    receipt = await run_client(lambda: way(wire.url, data, lanes))
    check(daemon, receipt, data)
    assert receipt.resumed == 1 or lanes > 1, "another lane can do it"
    assert receipt.sent_bytes == len(data), "all of it was durable, or it was only a reply"


async def test_a_resume_whose_reply_is_lost_does_not_fence_its_own_client(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.SYNC, reply=True):
            frame.cut()
        if frame.header.type is FrameType.RESUME and not frame.from_client and frame.count < 2:
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(20 * SLOT_BYTES)
    receipt = await run_client(lambda: upload_by_writing(wire.url, data))
    check(daemon, receipt, data)
    assert receipt.sent_bytes == len(data)
    assert wire.connections == 4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 20])
async def test_a_chunk_that_is_cut_in_two_is_sent_again(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    way: Way,
    lanes: int,
    count: int,
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.DATA, count):
            frame.cut(len(frame.whole) // 2)
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(20 * SLOT_BYTES + 77)
    receipt = await run_client(lambda: way(wire.url, data, lanes))
    check(daemon, receipt, data)
    assert receipt.resumed == 1 or lanes > 1, "another lane can do it"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("seed", range(4))
async def test_connections_cut_at_random_bytes_lose_nothing(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    way: Way,
    lanes: int,
    seed: int,
) -> None:
    chance = random.Random(seed)

    def rule(frame: Frame) -> bytes:
        if frame.header.type is not FrameType.HELLO and chance.random() < 0.04:
            frame.cut(chance.randrange(len(frame.whole)))
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(30 * SLOT_BYTES + 77)
    check(daemon, await run_client(lambda: way(wire.url, data, lanes)), data)


async def test_a_newer_client_fences_the_older_and_keeps_the_upload(
    daemon: Daemon, run_client: RunClient, content: Content
) -> None:
    data = content(20 * SLOT_BYTES)

    async def main() -> None:
        async with connect(daemon.unix) as old, connect(daemon.unix) as new:
            async with new.upload("other"):  # a connection that is in use goes on
                pass
            with pytest.raises(RefusedError) as caught:
                async with old.upload("file") as first:
                    await first.write(data[: 10 * SLOT_BYTES])
                    await first.sync()
                    async with new.resume(first.id) as second:
                        await second.send_file(Bytes(data))
                        await second.sync()
                        with pytest.raises(RefusedError):
                            while True:
                                await first.write(data)
                        receipt = await second.commit()
                    await first.commit()
            assert caught.value.code is ErrorCode.FENCED
            assert not caught.value.retryable
            assert receipt.sent_bytes == 10 * SLOT_BYTES
            await old.ping()

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
async def test_another_process_goes_on_and_sends_nothing_durable_again(
    daemon: Daemon, run_client: RunClient, content: Content, lanes: int, *, stream: bool
) -> None:
    data = content(20 * SLOT_BYTES + 5)

    async def main() -> Receipt:
        async with connect(daemon.unix) as client, client.upload("file", len(data)) as upload:
            await upload.write(data[: 7 * SLOT_BYTES + 9])
            await upload.sync()
            upload.keep()
        async with (
            connect(daemon.unix) as client,
            client.resume(upload.id, lanes=lanes) as resumed,
        ):
            assert (resumed.name, resumed.size) == ("file", len(data))
            await (resumed.send_from(Trickle(data)) if stream else resumed.send_file(Bytes(data)))
            return await resumed.commit()

    receipt = await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert receipt.sent_bytes == 13 * SLOT_BYTES + 5


async def test_writes_of_bytes_that_are_durable_are_compared_and_not_sent(
    daemon: Daemon, run_client: RunClient, content: Content
) -> None:
    data = content(5 * SLOT_BYTES + 5)

    async def main() -> Receipt:
        async with connect(daemon.unix) as client:
            async with client.upload("file") as upload:
                await upload.write(data[: 3 * SLOT_BYTES])
                await upload.sync()
                upload.keep()
            async with client.resume(upload.id) as upload:
                for start in range(0, len(data), 1000):
                    await upload.write(data[start : start + 1000])
                return await upload.commit()

    receipt = await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert receipt.sent_bytes == 2 * SLOT_BYTES + 5


@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
async def test_other_data_is_refused_before_any_of_it_is_sent(
    daemon: Daemon, run_client: RunClient, content: Content, *, stream: bool
) -> None:
    data = content(6 * SLOT_BYTES)
    other = b"x" + data[1:]

    async def main() -> None:
        async with connect(daemon.unix) as client:
            async with client.upload("file") as upload:
                await upload.write(data[: 3 * SLOT_BYTES])
                await upload.sync()
                upload.keep()
            with pytest.raises(SourceError, match="has changed"):
                async with client.resume(upload.id) as again:
                    if stream:
                        await again.send_from(Trickle(other))
                    else:
                        await again.send_file(Bytes(other))
            assert again.sent_bytes == 0

    await run_client(main)


async def test_data_that_ends_within_what_is_durable_is_other_data(
    daemon: Daemon, run_client: RunClient, content: Content
) -> None:
    data = content(3 * SLOT_BYTES)

    async def main() -> None:
        async with connect(daemon.unix) as client:
            async with client.upload("file") as upload:
                await upload.write(data)
                await upload.sync()
                upload.keep()
            with pytest.raises(SourceError, match="has changed"):
                async with client.resume(upload.id) as again:
                    await again.send_from(Trickle(data[: SLOT_BYTES + 1]))
                    await again.commit()

    await run_client(main)
    assert daemon.published == []


async def test_an_upload_that_is_gone_is_not_begun_again(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient
) -> None:
    wire = await open_wire(daemon, cut_off(FrameType.SYNC))

    async def main() -> None:
        with pytest.raises(RefusedError) as caught:
            async with connect(wire.url) as client, client.upload("file") as upload:
                await upload.write(bytes(SLOT_BYTES))
                async with connect(daemon.unix) as other:
                    await other.abort(upload.id)
                await upload.sync()
        assert caught.value.code in {ErrorCode.NOT_FOUND, ErrorCode.FENCED}

    await run_client(main)
    assert (daemon.published, daemon.spool) == ([], [])


async def test_without_patience_a_lost_connection_names_the_upload_that_can_be_resumed(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    wire = await open_wire(daemon, cut_off(FrameType.COMMIT))
    data = content(3 * SLOT_BYTES)

    async def main() -> Receipt:
        with pytest.raises(ConnectionLostError) as caught:
            async with connect(wire.url, retry_s=0) as client, client.upload("file") as upload:
                await upload.write(data)
                await upload.commit()
        assert caught.value.retryable
        assert caught.value.upload_id == upload.id
        async with connect(wire.url) as client, client.resume(upload.id) as again:
            await again.write(data)
            return await again.commit()

    receipt = await run_client(main)
    assert receipt.sent_bytes == 0, "it was published already"
    assert (daemon.root / "file").read_bytes() == data


@pytest.mark.parametrize(
    ("frame_type", "code", "passes"),
    [
        (FrameType.RESUME, ErrorCode.BUSY, True),
        (FrameType.HELLO, ErrorCode.TOO_MANY_CONNECTIONS, True),
        (FrameType.HELLO, ErrorCode.UNAUTHORIZED, False),
        (FrameType.RESUME, ErrorCode.FENCED, False),
        (FrameType.RESUME, ErrorCode.IO, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_only_what_passes_is_tried_again(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    frame_type: FrameType,
    code: ErrorCode,
    *,
    passes: bool,
) -> None:
    refusals = 0

    def rule(frame: Frame) -> bytes:
        nonlocal refusals
        if frame.is_a(FrameType.SYNC, reply=True):
            frame.cut()
        mine = frame.header.type is frame_type and not frame.from_client and frame.connection
        if mine and refusals < 3:
            refusals += 1
            frame.refuse(code)
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(20 * SLOT_BYTES)
    if passes:
        check(daemon, await run_client(lambda: upload_by_writing(wire.url, data)), data)
        assert refusals == 3
        return
    with pytest.raises(RefusedError) as caught:
        await run_client(lambda: upload_by_writing(wire.url, data))
    assert caught.value.code is code
    assert refusals == 1
    assert daemon.published == []
    async with connect(daemon.unix) as client:
        [left] = (await client.list_uploads()).uploads
        await client.abort(left.upload_id)


async def test_a_client_that_is_left_aborts_over_a_new_connection(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, until: Until
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.PING):
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with connect(wire.url) as client, client.upload("file") as upload:
                await upload.write(bytes(SLOT_BYTES))
                with pytest.raises(ConnectionLostError):
                    await client.ping()
                raise ZeroDivisionError

    await run_client(main)
    assert wire.connections == 2
    assert (daemon.published, daemon.spool) == ([], [])


async def test_an_instance_id_that_changes_in_a_session_is_asked_about_before_more_is_sent(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.header.type is FrameType.ACK and frame.count == 2:
            ack = pb.Ack.FromString(frame.payload)
            ack.instance_id = bytes(16)
            return frame.with_message(ack)
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(30 * SLOT_BYTES)

    async def main() -> Receipt:
        async with connect(wire.url) as client, client.upload("file") as upload:
            for start in range(0, len(data), SLOT_BYTES):
                await upload.write(data[start : start + SLOT_BYTES])
            return await upload.commit()

    check(daemon, await run_client(main), data)
    assert wire.sent(FrameType.SYNC)
    assert not wire.sent(FrameType.RESUME)


async def test_connections_that_are_lost_leave_the_client_s_questions_alone(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient
) -> None:
    wire = await open_wire(daemon, cut_off(FrameType.PING))

    async def main() -> None:
        async with connect(wire.url) as client:
            with pytest.raises(ConnectionLostError):
                await client.ping()
            await client.ping()

    await run_client(main)
    assert wire.connections == 2
