"""Packets between workers: a connection for each question, a Unix socket for each worker.

Facts that this rests on (unix(7)): a SOCK_SEQPACKET socket keeps the bounds of what is sent, and
brings descriptors with it; connecting to a socket whose process has died fails at once with
ECONNREFUSED, and a connection whose other end has died is at its end. So "nobody is there" is known
without waiting, a question is answered or it was not, and no state is left between two of them.

The sockets are in a directory of mode 0700 below ROOT/.uringd, each named by its process id.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.workers.messages import (
    PACKET_BYTES_MAX,
    Answer,
    MessageError,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from uringd.workers.messages import Question

    Answering = Callable[[object, int | None], Awaitable[Answer]]

log = structlog.get_logger("uringd.workers")

ASK_TIMEOUT_S = 60.0
"""What an answer may take: as RESUME waits for a session of its own worker."""

QUESTION_TIMEOUT_S = 10.0
"""What the question behind a connection may take: it is sent at once."""

ACCEPT_AGAIN_S = 0.1
"""After an accept that failed for want of descriptors: sessions end, and free some."""

BACKLOG = 128
"""Questions that wait to be accepted. Beyond it connect(2) says EAGAIN, and the socket tells nobody
when there is room."""

CONNECT_AGAIN_S = 0.01
"""Until it is tried again: a few passes of the other's scheduler."""

DESCRIPTORS_MAX = 4
"""Room for more descriptors than any message has, so that none is lost and all can be closed."""


class Bus:
    """One worker's end; `directory_fd` is where the sockets are."""

    def __init__(self, directory_fd: int, name: str) -> None:
        self._directory_fd = directory_fd
        self._name = name

    @contextlib.asynccontextmanager
    async def serve(self, answering: Answering) -> AsyncIterator[None]:
        """Answer questions until the block is left. `answering` owns the descriptor it gets."""
        path = self._path(self._name)
        remove(self._directory_fd, self._name)
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            await listener.bind(path)
            listener.listen(BACKLOG)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, listener, answering, nursery)
                try:
                    yield
                finally:
                    remove(self._directory_fd, self._name)
                    nursery.cancel_scope.cancel()

    async def ask_all(self, question: Question) -> list[tuple[str, Answer]]:
        """Ask every other worker; the result is the answers of those that gave one, by name."""
        answers: list[tuple[str, Answer]] = []

        async def ask_one(name: str) -> None:
            answer = await self.ask(name, question)
            if answer is not None:
                answers.append((name, answer))

        async with trio.open_nursery() as nursery:
            for name in os.listdir(self._directory_fd):
                if name != self._name:
                    nursery.start_soon(ask_one, name)
        return answers

    async def ask(self, name: str, question: Question, fd: int | None = None) -> Answer | None:
        """Ask one worker; None if it is not there, or was gone before it answered."""
        packet = encode(question)
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            with trio.move_on_after(ASK_TIMEOUT_S):
                try:
                    await _connect(asking, self._path(name))
                    if fd is None:
                        await asking.send(packet)
                    else:
                        await asking.sendmsg([packet], [_passing(fd)])
                    answer = decode(await asking.recv(PACKET_BYTES_MAX))
                except (OSError, MessageError):
                    return None
                return answer if isinstance(answer, Answer) else None
        log.warning("a worker did not answer", asked=name, question=type(question).__name__)
        return None

    async def _accept(
        self, listener: trio.socket.SocketType, answering: Answering, nursery: trio.Nursery
    ) -> None:
        while True:
            try:
                asking, _ = await listener.accept()
            except OSError as exc:  # no descriptor is free: who asks waits, or gives up
                log.warning("a question was not accepted", reason=exc.strerror)
                await trio.sleep(ACCEPT_AGAIN_S)
            else:
                nursery.start_soon(self._answer, asking, answering)

    async def _answer(self, asking: trio.socket.SocketType, answering: Answering) -> None:
        """Answer one question; what is asked for is done also when nobody waits any more."""
        with asking:
            try:
                with trio.fail_after(QUESTION_TIMEOUT_S):
                    question, fd = await _receive(asking)
                answer = await answering(question, fd)
                await asking.send(encode(answer))
            except (OSError, MessageError, trio.TooSlowError) as exc:
                log.warning("a question was not answered", reason=str(exc) or "it did not come")
            except Exception:  # a fault of ours costs the answer, never the worker
                log.exception("a question failed")

    def _path(self, name: str) -> str:
        return f"/proc/self/fd/{self._directory_fd}/{name}"


def remove(directory_fd: int, name: str) -> None:
    """Remove the name of a worker's socket, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory_fd)


async def _connect(asking: trio.socket.SocketType, path: str) -> None:
    """Connect, also while too many others wait to be accepted. Raises OSError."""
    while True:
        await asking.connect(path)
        with contextlib.suppress(OSError):  # ENOTCONN: trio has taken EAGAIN for EINPROGRESS
            asking.getpeername()
            return
        await trio.sleep(CONNECT_AGAIN_S)


def _passing(fd: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes()


async def _receive(asking: trio.socket.SocketType) -> tuple[object, int | None]:
    """Receive a question and the descriptor that came with it, if one did."""
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    packet, ancillary, flags, _ = await asking.recvmsg(
        PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > 1:
            raise MessageError("it was longer than any message")
        question = decode(packet)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return question, fds[0] if fds else None
