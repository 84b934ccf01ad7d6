"""Several connections that fill one upload, and what is kept until it is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from uringd.client import connect
from uringd.errors import RefusedError
from uringd.publishing import publish
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, RunClient
    from tests.uringd.conftest import Daemon, Until

Content = Callable[[int], bytes]

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


def ranges_by_connection(frames: list[Frame]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for frame in frames:
        found.setdefault(frame.connection, []).append(frame.header.offset)
    return found


@pytest.mark.parametrize("way", ["file", "big writes", "small writes"])
async def test_lanes_fill_disjoint_ranges(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content, way: str
) -> None:
    wire = await open_wire(daemon)
    data = content(40 * SLOT_BYTES + 3)
    # The first lane waits for another, or it might be through before they come.
    wire.held = lambda frame: (
        frame.header.type is FrameType.ACK
        and len(ranges_by_connection(wire.sent(FrameType.DATA))) < 2
    )

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", lanes=3) as upload:
            if way == "file":
                await upload.send_file(Bytes(data))
            step = SLOT_BYTES // 3 if way == "small writes" else 10 * SLOT_BYTES
            for start in range(0, len(data) if way != "file" else 0, step):
                await upload.write(data[start : start + step])
            receipt = await upload.commit()
            assert (receipt.lanes, receipt.sent_bytes) == (3, len(data))

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    filled = ranges_by_connection(wire.sent(FrameType.DATA))
    assert 2 <= len(filled) <= 3
    offsets = [offset for offsets in filled.values() for offset in offsets]
    assert sorted(offsets) == list(range(0, len(data), SLOT_BYTES))


async def test_a_lane_that_nobody_answers_leaves_the_work_to_the_others(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.connection >= 2:
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(40 * SLOT_BYTES)

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", lanes=4) as upload:
            await upload.send_file(Bytes(data))
            await upload.commit()

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert set(ranges_by_connection(wire.sent(FrameType.DATA))) <= {0, 1}


async def test_an_empty_upload_of_many_lanes_opens_no_connection_for_them(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient
) -> None:
    wire = await open_wire(daemon)

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", lanes=4) as upload:
            await upload.commit()

    await run_client(main)
    assert wire.connections == 1
    assert daemon.published == ["file"]


async def test_lanes_end_with_their_upload_also_when_it_is_cancelled(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, until: Until
) -> None:
    wire = await open_wire(daemon)
    for step in range(0, 20, 3):

        async def main(step: int = step) -> None:
            with anyio.CancelScope() as scope:
                async with connect(wire.url) as client, client.upload("x", lanes=3) as upload:
                    for number in range(20):
                        if number == step:
                            scope.cancel()
                        await upload.write(bytes(2 * SLOT_BYTES))
            assert scope.cancelled_caught

        await run_client(main)
        await until(lambda: not daemon.server.sessions)
        assert (daemon.spool, daemon.published) == ([], [])


async def test_what_the_server_lacks_features_for_is_refused(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.header.type is FrameType.HELLO and not frame.from_client:
            hello = pb.HelloReply.FromString(frame.payload)
            del hello.features[:]
            return frame.with_message(hello)
        return frame.whole

    wire = await open_wire(daemon, rule)

    async def main() -> None:
        async with connect(wire.url) as client:
            for options in [{"lanes": 2}, {"page_checksums": True}]:
                with pytest.raises(RefusedError) as caught:
                    async with client.upload("x", **options):  # type: ignore[arg-type]
                        pass
                assert caught.value.code is ErrorCode.UNSUPPORTED
            with pytest.raises(RefusedError) as caught:
                async with client.resume("0" * 32):
                    pass
            assert caught.value.code is ErrorCode.UNSUPPORTED
            with pytest.raises(ValueError, match="1 to 64"):
                async with client.upload("x", lanes=0):
                    pass

    await run_client(main)
    assert daemon.published == []


@pytest.mark.parametrize("lanes", [1, 3])
async def test_no_more_is_kept_than_the_bound_and_sync_is_asked_for_at_its_half(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content, lanes: int
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.header.type is FrameType.ACK:
            ack = pb.Ack.FromString(frame.payload)
            ack.durable = 0
            return frame.with_message(ack)
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(200 * SLOT_BYTES)
    most = 0

    async def main() -> None:
        nonlocal most
        async with connect(wire.url) as client, client.upload("file", lanes=lanes) as upload:
            bytes_max = upload.filling.retained.bytes_max = 32 * SLOT_BYTES
            for start in range(0, len(data), 3 * SLOT_BYTES):
                await upload.write(data[start : start + 3 * SLOT_BYTES])
                most = max(most, upload.filling.retained.bytes)
            await upload.commit()
        assert most <= bytes_max + lanes * SLOT_BYTES

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert 200 // 32 <= len(wire.sent(FrameType.SYNC)) <= 2 * 200 // 16 * lanes


async def test_a_source_that_reads_differently_again_is_noticed(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    data = content(10 * SLOT_BYTES)
    source = Bytes(data)

    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.DATA, 4):
            source.data = bytes(len(data))
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule)

    async def main() -> None:
        with pytest.raises(Exception, match=r"has changed|differs") as caught:
            async with connect(wire.url) as client, client.upload("file") as upload:
                await upload.send_file(source)
                await upload.commit()
        assert not getattr(caught.value, "retryable", True)

    await run_client(main)
    assert (daemon.published, daemon.spool) == ([], [])


async def test_a_server_that_keeps_its_acknowledgements_back_is_asked(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.header.type is FrameType.ACK:
            ack = pb.Ack.FromString(frame.payload)
            ack.accepted = ack.written = ack.durable = 0
            return frame.with_message(ack)
        if frame.is_a(FrameType.RESUME, reply=True):  # of a lane that comes last, it would tell
            resumed = pb.ResumeReply.FromString(frame.payload)
            del resumed.durable[:]
            return frame.with_message(resumed)
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(9 * SLOT_BYTES)

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", lanes=2) as upload:
            await upload.write(data)
            with anyio.fail_after(30):
                await upload.commit()

    await run_client(main)
    assert wire.sent(FrameType.SYNC)
    assert (daemon.root / "file").read_bytes() == data


async def test_a_commit_whose_connection_is_lost_is_asked_for_again_before_chunks_are(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.COMMIT):
            frame.cut(len(frame.whole))  # it arrives, and the answer has no way back
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(9 * SLOT_BYTES)

    async def publish_when_asked_again(*arguments: Any, **options: Any) -> int:
        while len(wire.sent(FrameType.COMMIT)) < 2:
            await trio.lowlevel.checkpoint()
        return await publish(*arguments, **options)

    monkeypatch.setattr("uringd.uploads.publish", publish_when_asked_again)

    async def main() -> None:
        async with connect(wire.url) as client, client.upload("file", lanes=2) as upload:
            await upload.write(data)
            with anyio.fail_after(30):
                await upload.commit()

    await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    offsets = [frame.header.offset for frame in wire.sent(FrameType.DATA)]
    assert len(offsets) == len(set(offsets)), "the upload took no chunks meanwhile"


@pytest.mark.parametrize(("code", "is_left"), [("UNSUPPORTED", False), ("FENCED", True)])
async def test_an_upload_whose_lane_is_refused_is_aborted_unless_it_is_somebody_elses(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    until: Until,
    code: str,
    is_left: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.RESUME, reply=True):
            frame.refuse(ErrorCode[code])
        return frame.whole

    wire = await open_wire(daemon, rule)

    async def main() -> None:
        with pytest.raises(RefusedError) as caught:
            async with connect(wire.url) as client, client.upload("file", lanes=2) as upload:
                await upload.write(content(9 * SLOT_BYTES))
                await upload.commit()
        assert caught.value.code is ErrorCode[code]

    await run_client(main)
    await until(lambda: not daemon.uploads)
    assert bool(daemon.spool) is is_left
