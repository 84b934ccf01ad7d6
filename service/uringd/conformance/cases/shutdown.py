"""SHUTDOWN: what a client sees of a server that leaves. These cases end the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.conformance.case import Section, SilentError, SkippedError, holds, same
from uringd.conformance.leaving import leaving
from uringd.conformance.peer import refused
from uringd.conformance.target import NobodyThereError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.conformance.target import Target

case = SECTION = Section("SH", "SHUTDOWN")


@case(1)
async def it_is_said(target: Target) -> None:
    """A server that leaves says SHUTDOWN with its deadline, and answers until then."""
    async with leaving(target).session(target) as (peer, _):
        holds(peer.shutdowns[0].deadline_ms > 0, "a deadline", peer.shutdowns[0].deadline_ms)
        await peer.alive()


@case(2, ErrorCode.SHUTTING_DOWN)
async def nothing_new(target: Target) -> None:
    """CREATE behind SHUTDOWN is SHUTTING_DOWN, and no fault: the session goes on."""
    async with leaving(target).session(target) as (peer, _):
        message = pb.Create(name=target.name())
        await peer.refusal(FrameType.CREATE, message, ErrorCode.SHUTTING_DOWN)
        await peer.alive()


@case(3, ErrorCode.SHUTTING_DOWN, needs=("resume",))
async def nothing_resumed(target: Target) -> None:
    """RESUME behind SHUTDOWN is SHUTTING_DOWN."""
    async with leaving(target).session(target) as (peer, _):
        message = pb.Resume(upload_id="0" * 32)
        await peer.refusal(FrameType.RESUME, message, ErrorCode.SHUTTING_DOWN)


@case(4)
async def what_is_open_goes_on(target: Target) -> None:
    """What is open goes on behind SHUTDOWN: chunks are taken, SYNC and COMMIT answered."""
    async with leaving(target).session(target) as (peer, upload):
        await peer.data(upload, 0, b"hello")
        same("durable", 5, await peer.sync(upload))
        same("the size", 5, (await peer.commit(upload, 5)).size)


@case(5)
async def it_ends(target: Target) -> None:
    """A server that leaves ends each session, at its deadline at the latest."""
    async with leaving(target).session(target) as (peer, upload):
        await peer.abort(upload)
        deadline_s = peer.shutdowns[-1].deadline_ms / 1000
        try:
            await peer.closed()
        except SilentError:
            if deadline_s > target.timeout_s:
                raise SkippedError(f"it may take {deadline_s:.0f} s: give --timeout") from None
            raise


@case(6, ErrorCode.SHUTTING_DOWN)
async def nobody_new(target: Target) -> None:
    """A new connection to a server that leaves is refused, or told SHUTTING_DOWN."""
    async with leaving(target).session(target):
        try:
            late = await target.open()
        except NobodyThereError:
            return
        frame, cookie = late.frame(FrameType.HELLO, pb.Hello(token=target.token))
        await late.send(frame)
        event = await late.receive()
        if event is not None:
            refused(await late.answer(cookie) if event.cookie else event, ErrorCode.SHUTTING_DOWN)
        await late.cut()
