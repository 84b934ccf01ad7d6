"""A source that is silent: the upload's connections are looked after meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import pytest

from uringd.client import Receipt, connect
from uringd.errors import RefusedError
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.client.conftest import Frame, OpenWire, RunClient
    from tests.uringd.conftest import Daemon
    from uringd.client import Transport
    from uringd.client.supply import Care

SLOT_BYTES = 64 << 10
CHUNKS = 8
STUCK_S = 60
LOOK_S = 0.005

Content = Callable[[int], bytes]


class FallingSilent:
    """Bytes that come once, and before their end nothing, until `wait` returns."""

    def __init__(self, data: bytes, wait: Callable[[], Awaitable[None]]) -> None:
        self.data = data
        self.wait = wait

    async def fill(self, view: memoryview, care: Care) -> int:
        if not self.data:
            with anyio.fail_after(STUCK_S):
                await care.attend(self.wait)
            return 0
        piece, self.data = self.data[: len(view)], self.data[len(view) :]
        view[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("lanes", [1, 4])
async def test_what_a_lost_connection_had_is_sent_again_while_the_source_is_silent(
    daemon: Daemon, open_wire: OpenWire, run_client: RunClient, content: Content, lanes: int
) -> None:
    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.DATA, CHUNKS - 1):
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule)
    data = content(CHUNKS * SLOT_BYTES)

    async def until_sent_again() -> None:
        while len(wire.sent(FrameType.DATA)) <= CHUNKS:  # noqa: ASYNC110  # of another loop
            await anyio.sleep(LOOK_S)

    async def main() -> Receipt:
        async with connect(wire.url) as client, client.upload("file", lanes=lanes) as upload:
            await upload.send_from(FallingSilent(data, until_sent_again))
            return await upload.commit()

    receipt = await run_client(main)
    assert (daemon.root / "file").read_bytes() == data
    assert receipt.resumed >= 1 or lanes > 1, "another lane can do it"


@pytest.mark.parametrize("lanes", [1, 4])
async def test_an_upload_that_somebody_aborts_ends_while_the_source_is_silent(
    daemon: Daemon, run_client: RunClient, content: Content, lanes: int
) -> None:
    async def main() -> None:
        async with connect(daemon.unix) as client, connect(daemon.unix) as other:
            with pytest.raises(RefusedError) as caught:
                async with client.upload("file", lanes=lanes) as upload:

                    async def abort() -> None:
                        await other.abort(upload.id)
                        await anyio.sleep_forever()

                    await upload.send_from(FallingSilent(content(SLOT_BYTES), abort))
        assert caught.value.code is ErrorCode.NOT_FOUND

    await run_client(main)
    assert (daemon.published, daemon.spool) == ([], [])


@pytest.mark.usefixtures("needs_io_uring")
@pytest.mark.parametrize(("transport", "requests"), [("copy", 1), ("slab", 2)])
async def test_a_source_may_go_on_while_memory_is_attached_again(
    daemon: Daemon,
    open_wire: OpenWire,
    run_client: RunClient,
    content: Content,
    transport: Transport,
    requests: int,
) -> None:
    """A session attaches once, and the answer is still to come: it is asked in another one."""

    def rule(frame: Frame) -> bytes:
        if frame.is_a(FrameType.PLACED, CHUNKS - 1):
            frame.cut()
        return frame.whole

    wire = await open_wire(daemon, rule, descriptors=True)
    data = content(CHUNKS * SLOT_BYTES)

    def asked() -> int:
        return len(wire.sent(FrameType.ATTACH))

    def held(frame: Frame) -> bool:
        again = frame.is_a(FrameType.ATTACH, 2 * requests - 1, reply=True)
        return again and asked() <= 2 * requests

    wire.held = held

    async def until_asked_again() -> None:
        while asked() < 2 * requests:  # noqa: ASYNC110  # of another loop
            await anyio.sleep(LOOK_S)

    async def main() -> Receipt:
        async with (
            connect(wire.url, transport=transport) as client,
            client.upload("file") as upload,
        ):
            await upload.send_from(FallingSilent(data, until_asked_again))
            return await upload.commit()

    receipt = await run_client(main)
    assert receipt.transport == transport
    assert (daemon.root / "file").read_bytes() == data
