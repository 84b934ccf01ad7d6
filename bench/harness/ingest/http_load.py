"""A lean load generator for HTTP PUT: one thread, epoll, keep-alive connections.

A small upload is one sendmsg(2) and one recv(2); a big one is sendfile(2) from the page cache, so
that its bytes never come to user space here. Each connection sends its next upload when the last
one was answered.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import time
from typing import TYPE_CHECKING

from bench.harness.ingest.load import Load
from bench.harness.ingest.server import HOST
from bench.harness.measurement import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects

ANSWER_TIMEOUT_S = 120.0
"""A server from which nothing comes for so long is stuck; the slowest syncs 2 GiB meanwhile."""
ANSWER_BYTES_MAX = 1 << 16
SENDFILE_BYTES = 1 << 22
"""One call's share: the kernel cuts it to what the socket takes."""


class PutLoad:
    """Uploads all objects to a port. `prepare` connects, and yields what makes the load."""

    def __init__(self, port: int, objects: Objects) -> None:
        self._objects = objects
        self._numbers = iter(range(objects.count))
        self._poll = select.epoll()
        self._file = -1 if objects.small else os.open(objects.source, os.O_RDONLY)
        self._connections = {}
        for _ in range(objects.connections):
            sock = socket.create_connection((HOST, port), ANSWER_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._connections[sock.fileno()] = _Connection(sock, objects, self._file)
        self._commits_ns: list[tuple[int, int]] = []

    @classmethod
    @contextlib.contextmanager
    def prepare(cls, port: int, objects: Objects) -> Iterator[Run]:
        """Connect all, and close all in the end."""
        load = cls(port, objects)
        try:
            yield load.run
        finally:
            load.close()

    def run(self, begin: Begin) -> Load:
        """Upload. Raises CannotRunError for an answer that is no success, and for none."""
        begin()
        began = time.perf_counter_ns()
        for fd, connection in self._connections.items():
            self._poll.register(fd, select.EPOLLIN)
            self._next(fd, connection)
        left = self._objects.count
        while left:
            ready = self._poll.poll(ANSWER_TIMEOUT_S)
            if not ready:
                raise CannotRunError(f"gave no answer for {ANSWER_TIMEOUT_S:.0f} s")
            for fd, events in ready:
                connection = self._connections[fd]
                if events & select.EPOLLOUT and connection.send():
                    self._poll.modify(fd, select.EPOLLIN)
                if events & ~select.EPOLLOUT and connection.receive():
                    self._commits_ns.append((connection.began_ns, time.perf_counter_ns()))
                    left -= 1
                    self._next(fd, connection)
        return Load((time.perf_counter_ns() - began) / 1e9, self._commits_ns)

    def close(self) -> None:
        """Close everything."""
        for connection in self._connections.values():
            connection.sock.close()
        if self._file >= 0:
            os.close(self._file)
        self._poll.close()

    def _next(self, fd: int, connection: _Connection) -> None:
        number = next(self._numbers, None)
        if number is not None:
            connection.begin(number)
            if not connection.send():
                self._poll.modify(fd, select.EPOLLIN | select.EPOLLOUT)


class _Connection:
    """One connection, and the upload that it is at."""

    def __init__(self, sock: socket.socket, objects: Objects, file: int) -> None:
        self.sock = sock
        self.began_ns = 0
        self._objects = objects
        self._tail = objects.tail() if objects.small else memoryview(b"")
        self._file = file
        self._parts: list[memoryview] = []
        self._offset = 0
        self._answer = b""

    def begin(self, number: int) -> None:
        """Take up the next upload."""
        size = self._objects.size_bytes
        head = (
            f"PUT /{self._objects.name(number)} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Content-Length: {size}\r\n\r\n"
        ).encode()
        self._offset = 0
        if self._objects.small:
            self._parts = [memoryview(head + self._objects.head(number)), self._tail]
        else:
            self._parts = [memoryview(head)]
        self.began_ns = time.perf_counter_ns()

    def send(self) -> bool:
        """Send as much as the socket takes; the result is whether that was all."""
        try:
            while self._parts:
                self._sent(self.sock.sendmsg(self._parts))
            while self._file >= 0 and (left := self._objects.size_bytes - self._offset):
                length = min(left, SENDFILE_BYTES)
                self._offset += os.sendfile(self.sock.fileno(), self._file, self._offset, length)
        except BlockingIOError:
            return False
        if self._file >= 0:
            self.began_ns = time.perf_counter_ns()
        return True

    def receive(self) -> bool:
        """Read on; the result is whether an answer is whole. Raises CannotRunError."""
        try:
            said = self.sock.recv(ANSWER_BYTES_MAX)
        except BlockingIOError:
            return False
        self._answer += said
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not said or len(self._answer) > ANSWER_BYTES_MAX:
            raise CannotRunError("closed a connection in the middle of an upload")
        if not found:
            return False
        length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
        if length and len(body) < int(length[1]):
            return False
        status = head.split(b" ", 2)[1]
        if not status.startswith(b"2"):
            raise CannotRunError(f"answered {head.splitlines()[0].decode(errors='replace')}")
        self._answer = b""
        return True

    def _sent(self, count: int) -> None:
        while self._parts and count >= len(self._parts[0]):
            count -= len(self._parts.pop(0))
        if self._parts:
            self._parts[0] = self._parts[0][count:]
