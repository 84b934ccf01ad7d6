"""Many small files from the client's side: answered once each, whatever breaks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from uringd.client import PutResult, connect
from uringd.errors import ConnectionLostError, RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import SMALL_BYTES_MAX, Control, ErrorCode, FrameType, error_message

if TYPE_CHECKING:
    import trio

    from tests.uringd.conftest import Daemon, InAsyncio, Script, ScriptedServer
    from uringd.urls import UnixUrl

    Scripted = Callable[[Script], Awaitable[UnixUrl]]

FILES = [(f"d{n % 5}/f{n}", os.urandom(n * 37 % 9000)) for n in range(300)]


def nobody(result: PutResult) -> None:
    raise AssertionError(result)


def kept(daemon: Daemon) -> dict[str, bytes]:
    return {name: (daemon.root / name).read_bytes() for name, _ in FILES}


@pytest.mark.parametrize("lanes", [1, 3])
async def test_all_files_are_published_and_answered_once(daemon: Daemon, lanes: int) -> None:
    results: list[PutResult] = []
    async with connect(daemon.tcp) as client:
        await client.put_many(FILES, results.append, lanes=lanes)
    assert kept(daemon) == dict(FILES)
    assert sorted(result.name for result in results) == sorted(name for name, _ in FILES)
    for result in results:
        assert result.error is None and result.receipt is not None and not result.unchanged
        assert result.receipt.durability == "published"


async def test_asyncio_applications_have_it_too(daemon: Daemon, in_asyncio: InAsyncio) -> None:
    results: list[PutResult] = []

    async def main() -> None:
        async with connect(daemon.tcp) as client:
            await client.put_many(FILES, results.append, lanes=2)

    await in_asyncio(main)
    assert kept(daemon) == dict(FILES)
    assert len(results) == len(FILES)


async def test_what_is_refused_is_that_files_own_error(daemon: Daemon) -> None:
    (daemon.root / "taken").write_bytes(b"old")
    files: list[tuple[str, bytes | bytearray]] = [
        ("good", b"x"),
        ("taken", b"new"),
        ("../bad", b"x"),
        ("\udcff", b"x"),
        ("long", bytes(SMALL_BYTES_MAX + 1)),
        ("last", bytearray(b"y")),
    ]
    results: list[PutResult] = []
    async with connect(daemon.unix) as client:
        await client.put_many(files, results.append)
    codes = {r.name: r.error.code for r in results if isinstance(r.error, RefusedError)}
    assert codes == {
        "taken": ErrorCode.EXISTS,
        "../bad": ErrorCode.BAD_NAME,
        "\udcff": ErrorCode.BAD_NAME,
        "long": ErrorCode.TOO_LARGE,
    }
    assert daemon.published == ["good", "last", "taken"]


async def test_keep_equal_tells_what_was_there(daemon: Daemon) -> None:
    async with connect(daemon.unix) as client:
        await client.put_many(FILES, lambda _: None)
        results: list[PutResult] = []
        changed = [*FILES[:-1], (FILES[-1][0], b"changed")]
        await client.put_many(changed, results.append, keep_equal=True)
    assert sum(result.unchanged for result in results) == len(FILES) - 1
    [refused] = [result for result in results if result.error]
    assert refused.name == FILES[-1][0]


async def test_nothing_to_send_is_nothing_done(daemon: Daemon) -> None:
    async with connect(daemon.unix) as client:
        await client.put_many([], nobody, lanes=2)
        await client.ping()


@pytest.mark.parametrize(
    "options", [{"lanes": 0}, {"lanes": 65}, {"in_flight": 0}, {"in_flight": 65}]
)
async def test_what_cannot_be_meant_is_refused_here(
    daemon: Daemon, options: dict[str, Any]
) -> None:
    async with connect(daemon.unix) as client:
        with pytest.raises(ValueError, match="64"):
            await client.put_many([], nobody, **options)


async def test_a_server_without_them_is_told(scripted: Scripted) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.greet()

    async with connect(await scripted(script)) as client:
        with pytest.raises(RefusedError) as caught:
            await client.put_many([("x", b"x")], nobody)
    assert caught.value.code is ErrorCode.UNSUPPORTED


def hello_reply() -> pb.HelloReply:
    return pb.HelloReply(
        instance_id=bytes(range(16)),
        chunk_bytes_max=65_536,
        alignment=4096,
        credit=1,
        uploads_max=1,
        features=["small-uploads"],
        small_bytes_max=SMALL_BYTES_MAX,
    )


async def test_what_had_no_answer_is_sent_again_with_keep_equal(scripted: Scripted) -> None:
    """The first connection breaks after some answers; each file is answered once all the same."""
    asked: list[list[pb.Put]] = []

    async def script(server: ScriptedServer) -> None:
        hello = await server.expect(FrameType.HELLO)
        await server.reply(hello, hello_reply())
        mine: list[pb.Put] = []
        asked.append(mine)
        first = len(asked) == 1
        while True:
            event = await server.next_event()
            if not isinstance(event, Control):
                return
            mine.append(event.message)
            if first and len(mine) > 3:
                return
            receipt = pb.Receipt(
                upload_id="0" * 32,
                name=event.message.name,
                durability=pb.DURABILITY_PUBLISHED,
                instance_id=bytes(range(16)),
                unchanged=event.message.keep_equal,
            )
            await server.reply(event, receipt)

    results: list[PutResult] = []
    names = [f"f{n}" for n in range(10)]
    async with connect(await scripted(script)) as client:
        await client.put_many([(name, b"x") for name in names], results.append)
    assert sorted(result.name for result in results) == names
    assert not any(put.keep_equal for put in asked[0])
    again = {put.name for put in asked[1] if put.keep_equal}
    assert again and again == {r.name for r in results if r.unchanged}
    assert {r.name for r in results if r.receipt and r.receipt.resumed} == again


async def test_a_server_that_leaves_is_tried_again(scripted: Scripted) -> None:
    sessions = 0

    async def script(server: ScriptedServer) -> None:
        nonlocal sessions
        sessions += 1
        leaves = sessions == 1
        await server.reply(await server.expect(FrameType.HELLO), hello_reply())
        while isinstance(event := await server.next_event(), Control):
            if leaves:
                await server.reply(event, error_message(ErrorCode.SHUTTING_DOWN, "it leaves"))
                return
            receipt = pb.Receipt(
                upload_id="0" * 32, durability=pb.DURABILITY_PUBLISHED, instance_id=bytes(range(16))
            )
            await server.reply(event, receipt)

    results: list[PutResult] = []
    async with connect(await scripted(script)) as client:
        await client.put_many([("a", b"x"), ("b", b"y")], results.append)
    assert [result.error for result in results] == [None, None]
    assert sessions == 2


async def test_patience_ends(scripted: Scripted, autojump_clock: trio.testing.MockClock) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.reply(await server.expect(FrameType.HELLO), hello_reply())
        await server.next_event()

    results: list[PutResult] = []
    async with connect(await scripted(script), retry_s=2.0) as client:
        with pytest.raises(ConnectionLostError):
            await client.put_many([("a", b"x")], results.append)
    assert results == []


async def test_an_error_of_the_callers_own_reaches_it_as_it_is(daemon: Daemon) -> None:
    def files() -> object:
        yield "a", b"x"
        raise KeyError("the source broke")

    async with connect(daemon.unix) as client:
        with pytest.raises(KeyError):
            await client.put_many(files(), lambda _: None, lanes=2)  # type: ignore[arg-type]
