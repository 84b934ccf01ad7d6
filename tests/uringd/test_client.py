"""The client library, under trio and under asyncio, with servers that are well and that are not."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from uringd.client import Receipt, connect
from uringd.client.stream import _why
from uringd.errors import ClientError, ConnectionLostError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, crc32c, error_message

if TYPE_CHECKING:
    from tests.conftest import RunPython
    from tests.uringd.conftest import (
        Daemon,
        InAsyncio,
        Script,
        ScriptedServer,
        Serving,
        Until,
    )
    from uringd.urls import UnixUrl

    Scripted = Callable[[Script], Awaitable[UnixUrl]]

Content = Callable[[int], bytes]

SLOT_BYTES = 64 << 10


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_an_asyncio_application_uploads_as_a_trio_one_does(
    daemon: Daemon, in_asyncio: InAsyncio, content: Content, transport: str
) -> None:
    data = content(20 * SLOT_BYTES + 77)
    url = daemon.tcp if transport == "tcp" else daemon.unix

    async def upload() -> Receipt:
        async with connect(url) as client, client.upload("file", len(data)) as upload:
            for start in range(0, len(data), 100_000):
                await upload.write(data[start : start + 100_000])
            return await upload.commit()

    receipt = await in_asyncio(upload)
    assert (daemon.root / "file").read_bytes() == data
    assert (receipt.size, receipt.crc32c) == (len(data), f"{crc32c(data):08x}")
    assert receipt.transport == transport


async def test_a_cancelled_asyncio_upload_is_aborted(
    daemon: Daemon, in_asyncio: InAsyncio, until: Until
) -> None:
    async def upload() -> None:
        async with connect(daemon.unix) as client:
            with anyio.CancelScope() as scope:
                async with client.upload("file") as upload:
                    await upload.write(bytes(3 * SLOT_BYTES))
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    await in_asyncio(upload)
    await until(lambda: not daemon.server.sessions)
    assert (daemon.spool, daemon.published) == ([], [])


async def test_sync_says_how_much_is_durable(daemon: Daemon) -> None:
    async with connect(daemon.unix) as client, client.upload("file") as upload:
        await upload.write(bytes(2 * SLOT_BYTES + 1))
        assert await upload.sync() == 2 * SLOT_BYTES
        assert upload.durable == 2 * SLOT_BYTES
        await upload.commit()


async def test_leaving_without_commit_aborts_and_the_connection_goes_on(daemon: Daemon) -> None:
    async with connect(daemon.unix) as client:
        async with client.upload("file") as upload:
            await upload.write(bytes(3 * SLOT_BYTES))
        assert daemon.spool == []
        with pytest.raises(ZeroDivisionError):
            async with client.upload("file") as upload:
                await upload.write(bytes(3 * SLOT_BYTES))
                raise ZeroDivisionError
        assert daemon.spool == []
        async with client.upload("file") as upload:
            await upload.commit()
    assert daemon.published == ["file"]


async def test_a_cancelled_upload_is_aborted_wherever_it_was(daemon: Daemon, until: Until) -> None:
    for step in range(20):
        with trio.CancelScope() as scope:
            async with connect(daemon.unix) as client, client.upload("file") as upload:
                for number in range(20):
                    if number == step:
                        scope.cancel()
                    await upload.write(bytes(SLOT_BYTES))
        assert scope.cancelled_caught
        await until(lambda: not daemon.server.sessions)
        assert (daemon.spool, daemon.published) == ([], [])


async def test_a_refusal_has_its_code_and_the_session_goes_on(daemon: Daemon) -> None:
    async with connect(daemon.unix) as client:
        with pytest.raises(RefusedError) as caught:
            await client.stat(name="nothing")
        assert caught.value.code == ErrorCode.NOT_FOUND
        assert not caught.value.retryable
        with pytest.raises(RefusedError) as caught:
            await client.abort("0" * 32)
        assert caught.value.code == ErrorCode.NOT_FOUND
        await client.ping()
        async with client.upload("a/file") as upload:
            stat = await client.stat(upload_id=upload.id)
            assert stat.upload.name == "a/file"
            [listed] = (await client.list_uploads()).uploads
            assert listed.upload_id == upload.id
            await upload.commit()
        assert (await client.stat(name="a/file")).file.size == 0
        assert [file.name for file in (await client.list_files("a")).files] == ["a/file"]


async def test_a_missing_token_is_refused_with_what_to_do(serving: Serving) -> None:
    async with serving(token="secret") as daemon:
        with pytest.raises(RefusedError) as caught:
            async with connect(daemon.tcp, token="wrong"):
                pass
        assert caught.value.code == ErrorCode.UNAUTHORIZED
        assert "token file" in str(caught.value)
        async with connect(daemon.tcp, token="secret") as client:
            await client.ping()


async def test_no_server_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    [closed] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = closed.socket.getsockname()[1]
    await closed.aclose()
    for url in [
        f"tcp://127.0.0.1:{port}",
        f"unix://{tmp_path}/nothing",
        f"unix://{tmp_path}/file",
        "tcp://host.invalid:1",
    ]:
        with pytest.raises(ConnectionLostError, match="is uringd serving there") as caught:
            async with connect(url):
                pass
        assert caught.value.upload_id == ""


async def test_a_broken_upload_says_so_at_the_next_call_and_each_one_after(
    scripted: Scripted,
) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.greet(credit=8)
        await server.begin()
        await server.chunk()
        message = error_message(ErrorCode.NO_SPACE, "the disk is full", offset=0)
        await server.send(server.connection.send_control(FrameType.ERROR, message, upload=1))
        asked = await server.expect(FrameType.PING)
        await server.reply(asked, pb.PingReply())
        await server.reply(await server.expect(FrameType.ABORT), pb.AbortReply())
        await server.next_event()

    async with connect(await scripted(script)) as client:
        with pytest.raises(RefusedError) as caught:
            async with client.upload("file") as upload:
                await upload.write(bytes(SLOT_BYTES))
                await client.ping()
                for _ in range(2):
                    with pytest.raises(RefusedError, match="the disk is full"):
                        await upload.sync()
                await upload.commit()
        assert caught.value.code == ErrorCode.NO_SPACE
        assert caught.value.offset == 0


async def test_a_client_waits_for_credit(scripted: Scripted, until: Until) -> None:
    received: list[int] = []

    async def script(server: ScriptedServer) -> None:
        await server.greet(credit=1)
        await server.begin()
        for number in range(4):
            offset, payload = await server.chunk()
            received.append(offset)
            for _ in range(20):  # a client without credit sends nothing, however long
                await trio.lowlevel.checkpoint()
            assert len(received) == number + 1
            await server.acknowledge(offset + len(payload))
        await server.next_event()

    async with connect(await scripted(script)) as client:
        with pytest.raises(ConnectionLostError):
            async with client.upload("file") as upload:
                await upload.write(bytes(4 * SLOT_BYTES))
                await until(lambda: len(received) == 4)
                await upload.commit()
    assert received == [number * SLOT_BYTES for number in range(4)]


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n" * 10, bytes(200), b"URIO"])
async def test_who_does_not_speak_the_protocol_is_no_server(
    scripted: Scripted, garbage: bytes
) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(FrameType.HELLO)
        await server.send(garbage)

    url = await scripted(script)
    with pytest.raises(ConnectionLostError, match="does not speak this protocol"):
        async with connect(url):
            pass


async def test_a_server_that_closes_at_once_is_no_server(scripted: Scripted) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(FrameType.HELLO)

    url = await scripted(script)
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        async with connect(url):
            pass


async def test_the_reason_that_the_server_gave_beats_the_broken_pipe(scripted: Scripted) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.greet(credit=1000)
        await server.begin()
        message = error_message(ErrorCode.INTERNAL, "the server failed: see its log")
        await server.send(server.connection.send_control(FrameType.ERROR, message))

    url = await scripted(script)
    with pytest.raises(ClientError, match="the server failed"):
        async with connect(url) as client, client.upload("file") as upload:
            while True:
                await upload.write(bytes(SLOT_BYTES))


async def test_a_wrong_address_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(ValueError, match="is no address"):
        async with connect("127.0.0.1:7433"):
            pass


def test_the_client_brings_neither_the_ring_nor_a_server(run_python: RunPython) -> None:
    run_python(
        "import sys, uringd.client\n"
        "loaded = {'trio', 'uringio', 'uringd.server', 'uringd.session', 'structlog'}\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
    )


def test_a_host_that_is_not_found_is_told_without_a_number() -> None:
    with pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("no number", 1, flags=socket.AI_NUMERICHOST)
    assert "Errno" in str(caught.value)
    assert _why(caught.value) == caught.value.strerror == "Name or service not known"


async def test_a_server_that_falls_silent_is_not_waited_for_without_end(
    scripted: Scripted,
) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.greet()
        await trio.sleep_forever()

    async with connect(await scripted(script), timeout_s=0.05) as client:
        with pytest.raises(ConnectionLostError, match="said nothing"):
            await client.ping()
        with pytest.raises(ConnectionLostError, match="said nothing"):
            await client.ping()


async def test_a_server_that_takes_nothing_is_not_waited_for_without_end(
    scripted: Scripted,
) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.greet(credit=1000)
        await server.begin()
        await trio.sleep_forever()

    async with connect(await scripted(script), timeout_s=0.05) as client:
        with pytest.raises(ConnectionLostError, match="took nothing") as caught:
            async with client.upload("name") as upload:
                for _ in range(1000):
                    await upload.write(bytes(upload.chunk_bytes))
        assert caught.value.upload_id
