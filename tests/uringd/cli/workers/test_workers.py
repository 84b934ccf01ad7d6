"""`uringd serve --workers N`: any worker serves any client, and an upload is one worker's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringd.client import connect
from uringd.errors import RefusedError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, UringdCommand
    from tests.uringd.cli.workers.conftest import Workers
    from tests.uringd.conftest import Peer

    ServeWorkers = Callable[..., Workers]

MIB = 1 << 20
ID = "0123456789abcdef" * 2
CONNECTIONS = 20
"""More than are tried until two workers are met."""
RACES = 15
"""As many uploads as one connection may have, with one to spare: a loser keeps its own."""

Content = Callable[[int], bytes]


@pytest.mark.parametrize("count", [2, 3])
async def test_connections_and_uploads_are_spread_over_all_workers(
    serve_workers: ServeWorkers, content: Content, count: int
) -> None:
    workers = serve_workers("--workers", count)
    met: set[bytes] = set()
    async with trio.open_nursery() as nursery:
        for number in range(count):

            async def upload(name: str, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                async with workers.peer(but=set(met)) as (peer, reply):
                    met.add(reply.instance_id)
                    task_status.started()
                    await peer.upload(name, content(MIB + 5))

            await nursery.start(upload, f"{number}")
    assert len(met) == count
    for number in range(count):
        assert (workers.server.root / f"{number}").read_bytes() == content(MIB + 5)
    named = {line["worker"] for line in workers.events("upload")}
    assert named == set(range(1, count + 1)), "each event names its worker"


async def test_resume_at_another_worker_fences_the_first_and_loses_no_durable_byte(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers, data = serve_workers(), content(3 * MIB)
    async with workers.peer() as (first, hello):
        handle = await first.create("x", upload_id=ID)
        await first.fill(handle, data[:MIB])
        async with workers.peer(but={hello.instance_id}) as (second, _):
            reply = await second.resume(ID, 1)
            assert (reply.epoch, reply.name) == (2, "x")
            assert [(part.offset, part.length) for part in reply.durable] == [(0, MIB)]
            acknowledged = [ack.durable for acked, ack in first.acks if acked == handle]
            _, refusal = await first.notice()
            assert refusal.code is ErrorCode.FENCED
            seen = len(first.acks)
            await first.data(handle, MIB, bytes(64 << 10))
            assert (await first.refusal(FrameType.SYNC, pb.Sync(), handle)).code is ErrorCode.FENCED
            assert all(acked == 0 for acked, _ in first.acks[seen:]), "credit, and no position"
            assert max(acknowledged, default=0) <= MIB
            await second.fill(reply.upload, data, MIB)
            await second.commit(reply.upload, len(data))
    assert (workers.server.root / "x").read_bytes() == data


async def test_a_lane_that_comes_to_another_worker_joins_where_the_upload_is(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers, data = serve_workers(), content(2 * MIB)
    async with workers.peer() as (first, hello):
        handle = await first.create("x", upload_id=ID)
        await first.fill(handle, data[:MIB])
        async with workers.peer(but={hello.instance_id}) as (second, other):
            reply = await second.resume(ID, 1, join=True)
            assert (reply.epoch, reply.instance_id) == (1, hello.instance_id)
            assert reply.instance_id != other.instance_id
            await second.fill(reply.upload, data, MIB)
            await second.ask(FrameType.PING, pb.Ping())
            assert (await second.commit(reply.upload, len(data))).instance_id == hello.instance_id
        await first.ask(FrameType.PING, pb.Ping())
        assert not first.notices, "nobody was fenced"
    assert (workers.server.root / "x").read_bytes() == data


async def test_a_lane_that_holds_more_than_can_move_is_told_to_ask_again(
    serve_workers: ServeWorkers,
) -> None:
    workers = serve_workers()
    async with workers.peer() as (first, hello):
        await first.create("x", upload_id=ID)
        async with workers.peer(but={hello.instance_id}) as (second, _):
            own = await second.create("y")
            message = pb.Resume(upload_id=ID, epoch=1, join=True)
            refusal = await second.refusal(FrameType.RESUME, message)
            assert (refusal.code, refusal.retryable) == (ErrorCode.BUSY, True)
            await second.commit(own, 0)
    assert (workers.server.root / "y").read_bytes() == b""


async def test_of_two_workers_that_create_one_id_one_does(serve_workers: ServeWorkers) -> None:
    workers = serve_workers()
    async with (
        workers.peer() as (first, hello),
        workers.peer(but={hello.instance_id}) as (second, _),
    ):
        for number in range(RACES):
            upload_id = f"{number:032x}"
            answers = await both(
                [first, second], FrameType.CREATE, pb.Create(name="x", upload_id=upload_id)
            )
            codes = [a.code for a in answers if isinstance(a, pb.Error)]
            assert codes == [int(ErrorCode.BUSY)]
            await second.ask(FrameType.ABORT, pb.Abort(upload_id=upload_id))
            for peer in (first, second):
                peer.notices.clear()
    assert workers.server.spool == []


@pytest.mark.parametrize("overwrite", [False, True])
async def test_of_two_workers_that_publish_one_name_the_kernel_chooses(
    serve_workers: ServeWorkers, uringd: UringdCommand, *, overwrite: bool
) -> None:
    workers = serve_workers()
    async with (
        workers.peer() as (first, hello),
        workers.peer(but={hello.instance_id}) as (second, _),
    ):
        for number in range(RACES):
            handles = [
                await peer.create(f"{number}", overwrite=overwrite) for peer in (first, second)
            ]
            for peer, handle, data in zip((first, second), handles, (b"1", b"2"), strict=True):
                await peer.data(handle, 0, data)
            answers = await both([first, second], FrameType.COMMIT, pb.Commit(size=1), handles)
            codes = [a.code for a in answers if isinstance(a, pb.Error)]
            assert codes == ([] if overwrite else [int(ErrorCode.EXISTS)])
    done = uringd("verify", workers.server.root, "--all")
    assert done.returncode == 0, "the newest receipt of each name is that of its file"


async def test_any_worker_lists_tells_and_aborts_what_another_holds(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers = serve_workers()
    async with workers.peer() as (first, hello):
        handle = await first.create("x", upload_id=ID)
        await first.fill(handle, content(MIB))
        async with workers.peer(but={hello.instance_id}) as (second, _):
            [listed] = (await second.ask(FrameType.LIST, pb.List(uploads=True))).uploads
            told = (await second.ask(FrameType.STAT, pb.Stat(upload_id=ID))).upload
            assert listed == told
            assert (told.state, told.written, told.name) == (1, MIB, "x")
            await second.ask(FrameType.ABORT, pb.Abort(upload_id=ID))
            _, refusal = await first.notice()
            assert refusal.code is ErrorCode.NOT_FOUND
            refused = await second.refusal(FrameType.STAT, pb.Stat(upload_id=ID))
            assert refused.code is ErrorCode.NOT_FOUND
    assert workers.server.spool == []


async def test_limits_are_the_servers_and_not_each_workers(
    serve_workers: ServeWorkers, tmp_path: Path
) -> None:
    config = tmp_path / "limits.toml"
    config.write_text(f"uploads_max = 2\nconnections_max = {CONNECTIONS}\n")
    workers = serve_workers("--config", config, "--spool-max", 8 * MIB)
    async with (
        workers.peer() as (first, hello),
        workers.peer(but={hello.instance_id}) as (second, _),
    ):
        await first.create("x", size=5 * MIB)
        big = await second.refusal(FrameType.CREATE, pb.Create(name="y", size=5 * MIB))
        assert big.code is ErrorCode.NO_SPACE
        await second.create("y", size=3 * MIB)
        third = await first.refusal(FrameType.CREATE, pb.Create(name="z"))
        assert third.code is ErrorCode.TOO_MANY_UPLOADS
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(RefusedError) as caught:
                for _ in range(CONNECTIONS):
                    await stack.enter_async_context(connect(workers.server.tcp))
            assert caught.value.code is ErrorCode.TOO_MANY_CONNECTIONS


async def both(
    peers: list[Peer], kind: FrameType, message: Any, handles: list[int] | None = None
) -> list[Any]:
    """Ask two peers the same at once; the result is their replies, or the ERRORs."""
    for peer, handle in zip(peers, handles or [0, 0], strict=True):
        await peer.send(peer.request(kind, message, handle))
    return [(await peer.answer()).message for peer in peers]


def test_a_server_of_several_workers_keeps_the_protocol(
    serve_workers: ServeWorkers, uringd: UringdCommand, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("handshake_timeout_s = 3.0\n")  # one case waits for its end
    workers = serve_workers("--config", config)
    done = uringd("conformance", workers.server.unix)
    assert done.returncode == 0, done.stdout
    assert workers.events("worker died") == []


@pytest.mark.usefixtures("needs_io_uring")
@pytest.mark.parametrize("transport", ["tcp", "unix", "copy", "sealed", "slab"])
def test_put_by_lanes_goes_through_several_workers(
    serve_workers: ServeWorkers,
    uringd: UringdCommand,
    content: Content,
    tmp_path: Path,
    transport: str,
) -> None:
    workers = serve_workers("--workers", 3)
    source = tmp_path / "source"
    source.write_bytes(content(40 * MIB + 1))
    url = workers.server.tcp if transport == "tcp" else workers.server.unix
    way = () if transport in {"tcp", "unix"} else ("--transport", transport)
    done = uringd("put", source, url, *way, "--lanes", 4, "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert (receipt["lanes"], receipt["transport"]) == (4, transport)
    assert (workers.server.root / "source").read_bytes() == source.read_bytes()


def test_the_number_of_workers_is_a_setting(
    serve_process: ServeProcess, uringd: UringdCommand, tmp_path: Path
) -> None:
    config = tmp_path / "workers.toml"
    config.write_text("workers = 2\n")
    serve_process("--config", config)
    log = (tmp_path / "server.log").read_text()
    assert log.count('"worker started"') == 2
    for number in ["0", "65", "many"]:
        done = uringd("serve", "--root", tmp_path / "other", "--workers", number)
        assert done.returncode == 2 and "--workers" in done.stderr


def test_workers_that_cannot_start_are_one_sentence(uringd: UringdCommand, tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh")
    options = ("--listen", f"unix://{tmp_path}/s", "--workers", 2, "--slots", 16_384)
    done = uringd("serve", "--root", tmp_path / "r", *options, prefix=limited)
    assert (done.returncode, done.stdout) == (5, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("uringd: ") and "memory" in last
    assert not (tmp_path / "s").exists()
