"""Small uploads as a client of the protocol meets them: real sockets, real files."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from tests.uringd.small.conftest import FaultyGroup, hold_groups
from uringd.small import memory
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    HEADER_BYTES,
    REQUESTS_MAX,
    SMALL_BYTES_MAX,
    Control,
    Durability,
    ErrorCode,
    FrameType,
    crc32c,
)
from uringio.lowlevel import small_files

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, Until

SMALL = "small-uploads"


async def answers(peer: Peer, count: int) -> dict[int, Control]:
    """Take answers, by their cookies."""
    events = [await peer.answer() for _ in range(count)]
    return {event.cookie: event for event in events}


def put(peer: Peer, name: str, content: bytes = b"content", **options: Any) -> bytes:
    return peer.request(FrameType.PUT, pb.Put(name=name, content=content, **options))


def fail(daemon: Daemon, step: str, nth: int, number: int) -> list[FaultyGroup]:
    """Let every group from now on have a fault."""
    groups: list[FaultyGroup] = []

    def open_group(*args: Any, **options: Any) -> FaultyGroup:
        groups.append(FaultyGroup(small_files.open_group(*args, **options), step, nth, number))
        return groups[-1]

    daemon.server.small.open_group = open_group
    return groups


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, SMALL_BYTES_MAX])
async def test_one_request_publishes_a_file(daemon: Daemon, open_peer: OpenPeer, size: int) -> None:
    content = os.urandom(size)
    async with open_peer(daemon.tcp, SMALL) as peer:
        receipt: pb.Receipt = await peer.ask(
            FrameType.PUT, pb.Put(name="dir/file", content=content)
        )
    assert (daemon.root / "dir" / "file").read_bytes() == content
    assert (receipt.name, receipt.size, receipt.crc32c) == ("dir/file", size, crc32c(content))
    assert Durability(receipt.durability) is Durability.PUBLISHED
    assert receipt.transport == "tcp" and len(receipt.upload_id) == 32
    assert receipt.instance_id == daemon.server.instance_id
    assert not receipt.unchanged


async def test_hello_says_how_long_it_may_be(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix, hello=False) as peer:
        assert (await peer.hello(features=(SMALL,))).small_bytes_max == SMALL_BYTES_MAX
    async with open_peer(daemon.unix, hello=False) as peer:
        assert (await peer.hello()).small_bytes_max == 0


async def test_it_is_refused_where_it_is_not_in_force(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        refusal = await peer.refusal(FrameType.PUT, pb.Put(name="x", content=b"x"))
        assert refusal.code is ErrorCode.UNSUPPORTED
        await peer.ask(FrameType.PING, pb.Ping())
    assert daemon.published == []


async def test_as_many_as_may_be_unanswered_are_published(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, SMALL) as peer:
        names = [f"d{n % 3}/f{n}" for n in range(REQUESTS_MAX)]
        await peer.send(b"".join(put(peer, name, name.encode()) for name in names))
        events = await answers(peer, len(names))
    assert {event.type for event in events.values()} == {FrameType.PUT}
    for name in names:
        assert (daemon.root / name).read_bytes() == name.encode()


async def test_other_requests_go_on_between_them(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix, SMALL, "resume") as peer:
        await peer.send(put(peer, "small") + peer.request(FrameType.PING, pb.Ping()))
        types = {event.type for event in (await answers(peer, 2)).values()}
        assert types == {FrameType.PUT, FrameType.PING}
        receipt = await peer.upload("ordinary", b"x" * 70_000)
        assert receipt.size == 70_000
    assert daemon.published == ["ordinary", "small"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", ErrorCode.BAD_NAME),
        ("../x", ErrorCode.BAD_NAME),
        ("/x", ErrorCode.BAD_NAME),
        (".uringd/x", ErrorCode.BAD_NAME),
        ("link/x", ErrorCode.BAD_NAME),
        ("file/x", ErrorCode.BAD_NAME),
        ("file", ErrorCode.EXISTS),
        ("directory", ErrorCode.EXISTS),
    ],
)
async def test_a_name_that_is_not_to_be_had_costs_the_request(
    daemon: Daemon, open_peer: OpenPeer, name: str, code: ErrorCode
) -> None:
    (daemon.root / "directory").mkdir()
    (daemon.root / "link").symlink_to("directory")
    (daemon.root / "file").write_bytes(b"old")
    before = daemon.published
    async with open_peer(daemon.unix, SMALL) as peer:
        await peer.send(put(peer, name) + put(peer, "other"))
        by_cookie = await answers(peer, 2)
    refused = [e.message.code for e in by_cookie.values() if e.type is FrameType.ERROR]
    assert refused == [code]
    assert daemon.published == sorted([*before, "other"])
    assert (daemon.root / "file").read_bytes() == b"old"


async def test_a_directory_is_not_overwritten(daemon: Daemon, open_peer: OpenPeer) -> None:
    (daemon.root / "directory").mkdir()
    async with open_peer(daemon.unix, SMALL) as peer:
        message = pb.Put(name="directory", content=b"x", overwrite=True)
        assert (await peer.refusal(FrameType.PUT, message)).code is ErrorCode.EXISTS


async def test_a_link_is_replaced_and_not_followed(daemon: Daemon, open_peer: OpenPeer) -> None:
    (daemon.root / "real").write_bytes(b"real")
    (daemon.root / "link").symlink_to("real")
    async with open_peer(daemon.unix, SMALL) as peer:
        await peer.ask(FrameType.PUT, pb.Put(name="link", content=b"new", overwrite=True))
    assert (daemon.root / "real").read_bytes() == b"real"
    assert not (daemon.root / "link").is_symlink()


async def test_damaged_bytes_end_the_session_and_nothing_is_written(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, SMALL) as peer:
        frame = bytearray(put(peer, "damaged", b"x" * 5000))
        frame[HEADER_BYTES + 2000] ^= 1
        await peer.send(bytes(frame))
        words = await peer.last_words()
    assert words is not None and words.code is ErrorCode.BAD_CHECKSUM
    assert daemon.published == [] and daemon.spool == []


async def test_content_above_the_limit_costs_the_request(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix, SMALL) as peer:
        message = pb.Put(name="x", content=bytes(SMALL_BYTES_MAX + 1))
        assert (await peer.refusal(FrameType.PUT, message)).code is ErrorCode.TOO_LARGE
        await peer.ask(FrameType.PUT, pb.Put(name="y", content=b"y"))
    assert daemon.published == ["y"]


async def test_sent_again_with_keep_equal_it_is_answered_again(
    serving: Serving, open_peer: OpenPeer
) -> None:
    """The answer may be lost with its connection, or with the server: nothing is remembered."""
    message = pb.Put(name="file", content=b"once")
    again = pb.Put(name="file", content=b"once", keep_equal=True)
    async with serving() as daemon, open_peer(daemon.unix, SMALL) as peer:
        assert not (await peer.ask(FrameType.PUT, message)).unchanged
        assert (await peer.refusal(FrameType.PUT, message)).code is ErrorCode.EXISTS
        assert (await peer.ask(FrameType.PUT, again)).unchanged
    async with serving() as daemon, open_peer(daemon.unix, SMALL) as peer:
        receipt = await peer.ask(FrameType.PUT, again)
        assert receipt.unchanged and receipt.crc32c == crc32c(b"once")


async def test_the_last_of_a_name_in_a_session_stays(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix, SMALL) as peer:
        frames = [put(peer, "name", b"%d" % n, overwrite=True) for n in range(20)]
        await peer.send(b"".join(frames))
        await answers(peer, 20)
    assert (daemon.root / "name").read_bytes() == b"19"


async def test_receipts_are_recorded_for_verify(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    async with open_peer(daemon.unix, SMALL) as peer:
        receipt: pb.Receipt = await peer.ask(FrameType.PUT, pb.Put(name="file", content=b"abc"))
    record = None
    with trio.fail_after(30):
        while record is None:
            record = await daemon.server.catalog.find_receipt(receipt.upload_id)
    found = (daemon.root / "file").stat()
    assert (record.name, record.size, record.crc32c) == ("file", 3, crc32c(b"abc"))
    assert (record.inode, record.modified_ns) == (found.st_ino, found.st_mtime_ns)
    await until(lambda: "file" not in daemon.server.root.naming)


async def test_a_failed_barrier_fails_all_and_begins_a_new_instance(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    before = daemon.server.instance_id
    groups = fail(daemon, "barrier", 0, errno.EIO)
    async with open_peer(daemon.unix, SMALL) as peer:
        # The first goes alone and has no barrier; those behind it are a group.
        await peer.send(b"".join(put(peer, f"f{n}") for n in range(REQUESTS_MAX)))
        by_cookie = await answers(peer, REQUESTS_MAX)
        refused = [e.message.code for e in by_cookie.values() if e.type is FrameType.ERROR]
        assert refused and set(refused) == {ErrorCode.IO}
        assert len(daemon.published) == REQUESTS_MAX - len(refused)
        assert daemon.server.instance_id != before
    assert sum(group.calls.count("barrier") for group in groups) <= len(groups)
    assert daemon.spool == []


async def test_no_group_to_be_had_is_an_error_of_those_in_it(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    def refuse(*_: Any, **__: Any) -> small_files.SmallGroup:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    opened = daemon.server.small.open_group
    daemon.server.small.open_group = refuse
    async with open_peer(daemon.unix, SMALL) as peer:
        message = pb.Put(name="x", content=b"x")
        assert (await peer.refusal(FrameType.PUT, message)).code is ErrorCode.IO
        daemon.server.small.open_group = opened
        await peer.ask(FrameType.PUT, message)


async def test_a_fault_of_ours_costs_the_group_and_not_the_server(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    def break_down(*_: Any, **__: Any) -> small_files.SmallGroup:
        raise AssertionError("a fault of ours")

    opened = daemon.server.small.open_group
    daemon.server.small.open_group = break_down
    async with open_peer(daemon.unix, SMALL) as peer:
        message = pb.Put(name="x", content=b"x")
        assert (await peer.refusal(FrameType.PUT, message)).code is ErrorCode.INTERNAL
        daemon.server.small.open_group = opened
        await peer.ask(FrameType.PUT, message)


async def test_memory_is_bounded_and_comes_back(
    daemon: Daemon, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """With room for one at a time all are published, one after the other."""
    small = daemon.server.small
    free = small.memory.free_bytes
    monkeypatch.setattr(memory, "SHARE_BYTES_MAX", 70_000)
    async with open_peer(daemon.unix, SMALL) as peer:
        frames = [put(peer, f"f{n}", b"x" * 60_000) for n in range(10)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, b"".join(frames))
            by_cookie = await answers(peer, 10)
    assert {event.type for event in by_cookie.values()} == {FrameType.PUT}
    await until(lambda: small.memory.free_bytes == free)


async def test_who_sends_slowly_while_others_wait_for_memory_is_ended(
    serving: Serving, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(contended_chunk_s=0.05) as daemon:
        monkeypatch.setattr(daemon.server.small.memory, "free_bytes", 70_000)
        async with open_peer(daemon.unix, SMALL) as slow, open_peer(daemon.unix, SMALL) as quick:
            await slow.send(put(slow, "slow", b"x" * 60_000)[: HEADER_BYTES + 100])
            while not daemon.server.receiving:
                await trio.lowlevel.checkpoint()
            await quick.ask(FrameType.PUT, pb.Put(name="quick", content=b"y" * 60_000))
            words = await slow.last_words()
            assert words is not None and words.code is ErrorCode.TIMEOUT
        assert daemon.published == ["quick"]


async def test_a_client_that_leaves_gives_its_memory_back(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    small = daemon.server.small
    free = small.memory.free_bytes
    async with open_peer(daemon.unix, SMALL) as peer:
        await peer.send(put(peer, "whole") + put(peer, "half", b"x" * 9000)[:1000])
    await until(lambda: not daemon.server.sessions)
    await until(lambda: small.memory.free_bytes == free)
    await until(lambda: daemon.spool == [])
    assert daemon.published in ([], ["whole"])
    assert not daemon.server.receiving


async def test_a_leaving_server_answers_what_it_has_and_refuses_more(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving() as daemon, open_peer(daemon.unix, SMALL) as peer:
        held = hold_groups(daemon)
        await peer.send(put(peer, "first"))
        [session] = daemon.server.sessions
        await until(lambda: session.small.in_flight == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.server.shut_down)
            await until(lambda: daemon.server.closing)
            await peer.send(put(peer, "second"))
            event = await peer.answer()
            assert event.type is FrameType.ERROR
            assert event.message.code == ErrorCode.SHUTTING_DOWN
            held.set()
            assert (await peer.answer()).type is FrameType.PUT
            assert await peer.last_words() is None
        assert daemon.published == ["first"]
        assert len(peer.shutdowns) == 1


@pytest.mark.parametrize("backend", ["threads", "io_uring"])
async def test_every_ring_has_them(
    serving: Serving, open_peer: OpenPeer, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "io_uring":
        request.getfixturevalue("needs_io_uring")
    async with serving(backend=backend) as daemon, open_peer(daemon.unix, SMALL) as peer:
        await peer.send(b"".join(put(peer, f"d/f{n}") for n in range(20)))
        events = await answers(peer, 20)
        assert {event.type for event in events.values()} == {FrameType.PUT}
        assert len(os.listdir(daemon.root / "d")) == 20


async def test_without_the_extension_there_are_small_uploads_too(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    daemon.server.small.open_group = small_files.PlainGroup
    async with open_peer(daemon.unix, SMALL) as peer:
        await peer.send(b"".join(put(peer, f"f{n}") for n in range(20)))
        events = await answers(peer, 20)
    assert {event.type for event in events.values()} == {FrameType.PUT}
    assert len(daemon.published) == 20


async def test_waiting_for_an_answer_is_not_being_idle(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(idle_timeout_s=0.05) as daemon, open_peer(daemon.unix, SMALL) as peer:
        held = hold_groups(daemon)
        await peer.send(put(peer, "file"))
        [session] = daemon.server.sessions
        await until(lambda: session.small.in_flight == 1)
        with trio.move_on_after(0.2):
            await until(lambda: not daemon.server.sessions)
        assert session in daemon.server.sessions
        held.set()
        assert (await peer.answer()).type is FrameType.PUT
        words = await peer.last_words()
        assert words is not None and words.code is ErrorCode.TIMEOUT


async def test_an_answer_that_cannot_be_given_costs_nobody_else(
    daemon: Daemon, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_peer(daemon.unix, SMALL) as one:
        await one.ask(FrameType.PING, pb.Ping())
        [session] = daemon.server.sessions
        monkeypatch.setattr(session, "answer_nowait", None)
        await one.send(put(one, "one"))
        async with open_peer(daemon.unix, SMALL) as other:
            await other.ask(FrameType.PUT, pb.Put(name="two", content=b"x"))
            await other.ask(FrameType.PUT, pb.Put(name="three", content=b"x"))
    assert {"two", "three"} <= set(daemon.published)


async def test_where_syncfs_is_no_barrier_each_is_synced_and_the_log_says_so(
    serving: Serving, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.release", lambda: "5.7.19")
    with capture_logs() as events:
        async with serving() as daemon, open_peer(daemon.unix, SMALL) as peer:
            groups = fail(daemon, "", 0, 0)
            await peer.send(b"".join(put(peer, f"f{n}") for n in range(REQUESTS_MAX)))
            await answers(peer, REQUESTS_MAX)
            daemon.server.small.report()
            daemon.server.small.report()
    assert {call for group in groups for call in group.calls if "write" in call} == {"write, fsync"}
    [said] = [event for event in events if event["event"] == "an fsync for each small upload"]
    assert "5.7.19" in said["reason"]
    [report] = [event for event in events if event["event"] == "small uploads"]
    assert (report["published"], report["failed"]) == (REQUESTS_MAX, 0)


async def test_receipts_that_cannot_be_recorded_are_said_and_cost_no_file(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    sql = "CREATE TRIGGER no BEFORE INSERT ON receipts BEGIN SELECT RAISE(ABORT, 'no'); END"
    await daemon.server.catalog._run(lambda db: db.execute(sql))
    with capture_logs() as events:
        async with open_peer(daemon.unix, SMALL) as peer:
            await peer.ask(FrameType.PUT, pb.Put(name="file", content=b"abc"))
            await until(lambda: "file" not in daemon.server.root.naming)
    assert (daemon.root / "file").read_bytes() == b"abc"
    [said] = [event for event in events if event["event"] == "receipts not recorded"]
    assert said["files"] == 1
