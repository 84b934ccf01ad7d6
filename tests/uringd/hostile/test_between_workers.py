"""One upload and several workers: races, half messages, a worker that is killed in the middle."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio

from tests.uringd.cli.workers.conftest import until
from tests.uringd.conftest import SLOT_BYTES, Refusal
from uringd.moving import UNREAD_BYTES_MAX
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ConnectionClosed, ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.cli.workers.conftest import Workers
    from tests.uringd.conftest import Peer

ServeWorkers = Callable[..., "Workers"]
Content = Callable[[int], bytes]

MIB = 1 << 20
ID = "0123456789abcdef" * 2
ROUNDS = 12
KILLS = 4
JOINS = 20


def descriptors(workers: Workers) -> dict[int, int]:
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in workers.pids}


async def answer(peer: Peer) -> object | None:
    """Take what comes of a request: a message, a Refusal, or None for a lost connection."""
    while True:
        try:
            event = await peer.next_event()
        except (trio.BrokenResourceError, OSError):
            return None
        if isinstance(event, ConnectionClosed):
            return None
        if event.cookie:
            return Refusal.of(event.message) if event.type is FrameType.ERROR else event.message


async def test_taking_an_upload_from_each_other_loses_no_durable_byte(
    serve_workers: ServeWorkers, content: Content
) -> None:
    """Two clients at two workers resume it at once, again and again, and fill it when they can."""
    workers, data = serve_workers(), content(ROUNDS * 2 * SLOT_BYTES)
    async with workers.peer() as (first, hello):
        await first.create("x", upload_id=ID)
        async with workers.peer(but={hello.instance_id}) as (second, _):
            epochs, reached, handle = [1], 0, 0
            for _ in range(ROUNDS):
                for peer in (first, second):
                    await peer.send(peer.request(FrameType.RESUME, pb.Resume(upload_id=ID)))
                answers = [await answer(peer) for peer in (first, second)]
                took = [reply for reply in answers if isinstance(reply, pb.ResumeReply)]
                refused = [each.code for each in answers if isinstance(each, Refusal)]
                assert set(refused) <= {ErrorCode.BUSY, ErrorCode.FENCED}
                assert took, "neither has it"
                newest = max(took, key=lambda reply: reply.epoch)
                epochs += sorted(reply.epoch for reply in took)
                assert sum(part.length for part in newest.durable) == reached
                holder = (first, second)[answers.index(newest)]
                handle = newest.upload
                for _ in range(2):
                    await holder.wait_credit()
                    await holder.data(handle, reached, data[reached : reached + SLOT_BYTES])
                    reached += SLOT_BYTES
                await holder.ask(FrameType.SYNC, pb.Sync(), handle)
            assert epochs == sorted(set(epochs)), "each taking over has an epoch of its own"
            await holder.commit(handle, reached)
    assert (workers.server.root / "x").read_bytes() == data
    assert not workers.events("worker died")


@pytest.mark.parametrize("cut", [1, 70])
async def test_a_connection_moves_with_half_a_message_in_its_buffer(
    serve_workers: ServeWorkers, content: Content, cut: int
) -> None:
    workers = serve_workers()
    async with workers.peer() as (first, hello):
        await first.create("x", upload_id=ID)
        async with workers.peer(but={hello.instance_id}) as (second, _):
            resume = pb.Resume(upload_id=ID, epoch=1, join=True)
            stat = pb.Stat(upload_id=ID)
            joining = second.request(FrameType.RESUME, resume)
            asking = second.request(FrameType.STAT, stat)
            await second.send(joining + asking[:cut])
            reply = (await second.answer()).message
            assert reply.instance_id == hello.instance_id
            await second.send(asking[cut:])
            assert (await second.answer()).message.upload.upload_id == ID
            await second.upload("y", content(MIB))
    assert (workers.server.root / "y").read_bytes() == content(MIB)


async def test_a_client_that_asks_much_behind_its_joining_costs_itself_only(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers = serve_workers()
    async with workers.peer() as (first, hello):
        await first.create("x", upload_id=ID)
        async with workers.peer(but={hello.instance_id}) as (second, _):
            resume = pb.Resume(upload_id=ID, epoch=1, join=True)
            listing = pb.List(prefix="x" * (UNREAD_BYTES_MAX // 2))
            frames = [second.request(FrameType.RESUME, resume)]
            frames += [second.request(FrameType.LIST, listing) for _ in range(20)]
            await second.send(b"".join(frames))
            answers = [await answer(second) for _ in frames]
            joined = answers[0]
            assert isinstance(joined, pb.ResumeReply) or (
                isinstance(joined, Refusal) and joined.code is ErrorCode.BUSY
            )
            assert all(isinstance(each, pb.ListReply) for each in answers[1:])
        await first.upload("y", content(MIB))
    assert not workers.events("worker died")


async def test_connections_that_come_and_move_and_go_leave_no_descriptor(
    serve_workers: ServeWorkers,
) -> None:
    workers = serve_workers()
    async with workers.peer() as (first, hello):
        await first.create("x", upload_id=ID)
        before = descriptors(workers)
        for number in range(JOINS):
            async with workers.peer(but={hello.instance_id}) as (second, _):
                join = pb.Resume(upload_id=ID, epoch=1, join=True)
                await second.send(second.request(FrameType.RESUME, join))
                if number % 2:  # every other one is gone before it has moved
                    assert isinstance(await answer(second), pb.ResumeReply)
        await until(lambda: descriptors(workers) == before)
        await first.ask(FrameType.PING, pb.Ping())


async def test_a_worker_that_is_killed_while_uploads_move_to_it_loses_no_durable_byte(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers, data = serve_workers(), content(MIB)
    for number in range(KILLS):
        upload_id = f"{number:032x}"
        async with workers.peer() as (first, hello):
            handle = await first.create(f"{number}", upload_id=upload_id)
            await first.fill(handle, data)
            await first.ask(FrameType.SYNC, pb.Sync(), handle)
            holder = await workers.until_holder(upload_id)
            async with workers.peer(but={hello.instance_id}) as (second, _):
                join = bool(number % 2)
                resume = pb.Resume(upload_id=upload_id, epoch=1, join=join)
                await second.send(second.request(FrameType.RESUME, resume))
                workers.kill(holder)
                found = await answer(second)
                if isinstance(found, pb.ResumeReply):
                    assert [part.length for part in found.durable] == [MIB]
                elif isinstance(found, Refusal):
                    assert found.code is ErrorCode.BUSY
        await workers.until_event("worker started", 3 + number)
        async with workers.peer() as (peer, _):
            reply = await peer.resume(upload_id)
            assert [part.length for part in reply.durable] == [MIB]
            await peer.commit(reply.upload, MIB)
        assert (workers.server.root / f"{number}").read_bytes() == data
