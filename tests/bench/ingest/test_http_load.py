"""http_load.py: what is sent to a server, and what becomes of an answer that is none."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bench.harness.cell import Cell
from bench.harness.ingest.http_load import PutLoad
from bench.harness.ingest.objects import Objects
from bench.harness.measurement import CannotRunError
from bench.harness.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

CELL = Cell("uploads", 12 * KIB, 4 * KIB, 1)
LONG_S = 30


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server for one connection, that gives these answers, piece by piece, and closes."""
    taken: list[bytes] = []

    def serve() -> None:
        sock, _ = listener.accept()
        sock.settimeout(LONG_S)
        with sock:
            for answer in answers:
                said = b""
                while len(said.partition(b"\r\n\r\n")[2]) < 4 * KIB:
                    said += sock.recv(1 << 16)
                taken.append(said)
                for position in range(len(answer)):
                    sock.sendall(answer[position : position + 1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], taken
        finally:
            thread.join(LONG_S)
            assert not thread.is_alive()


def load(port: int) -> int:
    began: list[None] = []
    with PutLoad.prepare(port, Objects(CELL, "")) as run:
        found = run(lambda: began.append(None))
    assert len(began) == 1
    assert found.seconds > 0
    assert all(begin < end for begin, end in found.commits_ns)
    return len(found.commits_ns)


def test_every_object_is_put_under_its_name_on_one_connection() -> None:
    created = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    with answering(created, b"HTTP/1.1 204 No Content\r\n\r\n", created) as (port, taken):
        assert load(port) == 3
    objects = Objects(CELL, "")
    for number, said in enumerate(taken):
        assert said.startswith(f"PUT /{objects.name(number)} HTTP/1.1\r\n".encode())
        assert b"\r\nContent-Length: 4096\r\n" in said
        assert said.endswith(objects.head(number) + bytes(objects.tail()))


def test_an_answer_that_is_no_success_ends_it_and_is_told() -> None:
    refused = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\n\r\n"
    with (
        answering(refused) as (port, _),
        pytest.raises(CannotRunError, match=r"answered HTTP/1\.1 507 Insufficient Storage"),
    ):
        load(port)


def test_a_connection_that_is_closed_in_the_middle_is_an_error() -> None:
    with answering(b"HTTP/1.1 20") as (port, _), pytest.raises(CannotRunError, match="closed"):
        load(port)
