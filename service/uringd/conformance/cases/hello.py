"""HELLO: what a session begins with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uringd.conformance.case import FailedError, Section, SkippedError, holds, same
from uringd.conformance.frames import raw
from uringd.conformance.peer import described, refused
from uringd.conformance.target import FEATURES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import DATA_BYTES_MAX, INSTANCE_ID_BYTES, ErrorCode, FrameType

if TYPE_CHECKING:
    from uringd.conformance.peer import Peer
    from uringd.conformance.target import Target

case = SECTION = Section("HE", "HELLO")

PROCESSES_MAX = 256
"""More than one machine has cores to give a server."""

CONNECTIONS_TRIED = 300
"""Connections that a case opens at most to be refused one; each is a descriptor on both sides."""


@case(1)
async def the_reply(target: Target) -> None:
    """HELLO is answered with everything that a session needs, each value within its limits."""
    async with target.connection() as peer:
        reply = await peer.hello(token=target.token)
        same("bytes of instance_id", INSTANCE_ID_BYTES, len(reply.instance_id))
        for field in ("chunk_bytes_max", "alignment"):
            value = getattr(reply, field)
            holds(1 <= value <= DATA_BYTES_MAX, f"{field} of 1 to {DATA_BYTES_MAX}", value)
        holds(reply.credit >= 1, "credit of at least 1", reply.credit)
        holds(reply.uploads_max >= 1, "uploads_max of at least 1", reply.uploads_max)
        aligned = reply.chunk_bytes_max >= reply.alignment
        holds(aligned, "chunk_bytes_max of at least one alignment", reply.chunk_bytes_max)


@case(2, ErrorCode.OUT_OF_ORDER, vectors=("second-hello",))
async def second_hello(target: Target) -> None:
    """A second HELLO is OUT_OF_ORDER and ends the session."""
    async with target.session() as peer:
        message = pb.Hello(client="again", token=target.token).SerializeToString()
        await peer.send(raw(FrameType.HELLO, message, cookie=1 << 40))
        await peer.ended(ErrorCode.OUT_OF_ORDER)


@case(3)
async def unknown_feature(target: Target) -> None:
    """A feature that the server does not have is left out, which is no error."""
    async with target.connection() as peer:
        reply = await peer.hello("no-such-feature", token=target.token)
        same("the features in force", [], list(reply.features))
        await peer.alive()


@case(4)
async def no_feature_unasked(target: Target) -> None:
    """No feature is in force that the client did not ask for."""
    async with target.connection() as peer:
        reply = await peer.hello(token=target.token)
        same("the features in force", [], list(reply.features))


@case(5)
async def each_feature_alone(target: Target) -> None:
    """Each feature that the server has and that stands alone is in force when it is asked for."""
    for feature in set(FEATURES) - {"lanes"}:
        async with target.connection() as peer:
            reply = await peer.hello(feature, token=target.token)
            wanted = [feature] if feature in target.features else []
            same("the features in force", wanted, list(reply.features))


@case(6)
async def lanes_need_resume(target: Target) -> None:
    """`lanes` is in force only together with `resume`."""
    async with target.connection() as peer:
        reply = await peer.hello("lanes", token=target.token)
        same("the features in force", [], list(reply.features))


@case(7)
async def a_feature_twice(target: Target) -> None:
    """A feature that is named twice is in force once."""
    async with target.connection() as peer:
        reply = await peer.hello("resume", "resume", token=target.token)
        times = list(reply.features).count("resume")
        same("times it is named", int("resume" in target.features), times)


@case(8, ErrorCode.UNAUTHORIZED)
async def wrong_token(target: Target) -> None:
    """A wrong token is answered with UNAUTHORIZED, and the session ends."""
    await _unauthorized(target, _token_of(target) + "x")


@case(9, ErrorCode.UNAUTHORIZED)
async def missing_token(target: Target) -> None:
    """A missing token is answered with UNAUTHORIZED, and the session ends."""
    _token_of(target)
    await _unauthorized(target, "")


@case(10, ErrorCode.UNAUTHORIZED)
async def which_of_the_two(target: Target) -> None:
    """The server does not say whether the token was missing or wrong."""
    token = _token_of(target)
    wrong = await _unauthorized(target, token[:-1] + "\0")
    missing = await _unauthorized(target, "")
    same("the text", missing.text, wrong.text)


@case(11)
async def instances_of_processes(target: Target) -> None:
    """An instance id is that of a process of the server and not of a session: of more sessions
    than a server has processes two are told the same.
    """
    met: set[bytes] = set()
    while len(met) <= PROCESSES_MAX:
        async with target.connection() as peer:
            reply = await peer.hello(token=target.token)
        if reply.instance_id in met:
            return
        met.add(reply.instance_id)
    raise FailedError("an instance id that another session was told", f"{len(met)} different ones")


@case(12, ErrorCode.TOO_MANY_CONNECTIONS)
async def too_many_connections(target: Target) -> None:
    """A server that takes no more connections says TOO_MANY_CONNECTIONS and takes them again when
    others have gone.
    """
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS_TRIED):
            peer = await stack.enter_async_context(target.connection())
            if await _is_turned_away(peer, target.token):
                break
        else:
            raise SkippedError(f"this server takes more than {CONNECTIONS_TRIED} connections")
    await target.until("a connection to be taken again", lambda: _takes_one(target))


async def _takes_one(target: Target) -> bool:
    async with target.connection() as peer:
        return not await _is_turned_away(peer, target.token)


async def _is_turned_away(peer: Peer, token: str) -> bool:
    frame, _ = peer.frame(FrameType.HELLO, pb.Hello(token=token))
    await peer.send(frame)
    event = await peer.receive()
    if event is None:
        raise FailedError("HELLO's reply or ERROR TOO_MANY_CONNECTIONS", "the end")
    if event.type is FrameType.HELLO:
        return False
    if event.message.code != ErrorCode.TOO_MANY_CONNECTIONS:
        raise FailedError("HELLO's reply or ERROR TOO_MANY_CONNECTIONS", described(event))
    return True


def _token_of(target: Target) -> str:
    if not target.token:
        raise SkippedError("this server was not said to ask for a token: give --token-file")
    return target.token


async def _unauthorized(target: Target, token: str) -> pb.Error:
    async with target.connection() as peer:
        frame, cookie = peer.frame(FrameType.HELLO, pb.Hello(token=token))
        await peer.send(frame)
        message = refused(await peer.answer(cookie), ErrorCode.UNAUTHORIZED)
        await peer.closed()
        return message
