"""Uploads that the second client began and lost, or goes on with."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.second_client.conftest import Node, Served, Uringd

MIB = 1 << 20
SIZE = 9 * MIB + 5
CARRIED_BYTES = 5 * MIB
"""What the server gets of the first try: two chunks and a part."""
WHOLE_CHUNKS_BYTES = 4 * MIB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(random.Random(SIZE).randbytes(SIZE))
    return path


@contextlib.contextmanager
def cut_after(count: int, server: tuple[str, str]) -> Iterator[int]:
    """Carry one connection to the server, `count` bytes of it; the result is where to connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(server) as upstream:
                answers = threading.Thread(target=pump, args=(upstream, client, SIZE))
                answers.start()
                pump(client, upstream, count)
                # An end for both, and the server has got it all. What it says is not heard.
                client.shutdown(socket.SHUT_RDWR)
                upstream.shutdown(socket.SHUT_WR)
                answers.join()

        thread = threading.Thread(target=carry)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def pump(source: socket.socket, sink: socket.socket, count: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while count and (data := source.recv(min(count, MIB))):
            sink.sendall(data)
            count -= len(data)


@pytest.fixture
def cut_off(node: Node, served: Served, source: Path, request: pytest.FixtureRequest) -> str:
    """Begin an upload named as the test and lose the connection; the result is its id."""
    with cut_after(CARRIED_BYTES, served.tcp) as port:
        done = node("put.mjs", source, "127.0.0.1", port, request.node.name)
    assert done.code == 4
    [upload_id] = re.findall(r"\(--resume ([0-9a-f]{32})\)", done.error)
    return str(upload_id)


def test_an_upload_that_was_cut_off_is_gone_on_with(
    node: Node, served: Served, source: Path, cut_off: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    assert not (served.root / name).exists()
    done = node("put.mjs", "--resume", cut_off, source, served.unix, name)
    assert (done.code, done.error) == (0, "")
    assert (served.root / name).read_bytes() == source.read_bytes()
    assert done.receipt["upload_id"] == cut_off
    assert 0 < done.receipt["sent_bytes"] <= SIZE - WHOLE_CHUNKS_BYTES


def test_a_published_upload_is_answered_with_its_receipt(
    node: Node, served: Served, source: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    first = node("put.mjs", source, served.unix, name)
    again = node("put.mjs", "--resume", first.receipt["upload_id"], source, served.unix, name)
    assert again.code == 0, again.error
    assert again.receipt == first.receipt | {"sent_bytes": 0}


def test_another_file_is_not_taken_for_the_rest(
    node: Node, served: Served, tmp_path: Path, cut_off: str, request: pytest.FixtureRequest
) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(SIZE))
    done = node("put.mjs", "--resume", cut_off, other, served.unix, request.node.name)
    assert done.code == 5
    assert done.error == "put.mjs: the upload has other bytes than the file: it is another file\n"


def test_the_first_client_goes_on_with_what_the_second_lost(
    uringd: Uringd, served: Served, source: Path, cut_off: str, request: pytest.FixtureRequest
) -> None:
    done = uringd("put", source, served.unix, "--name", request.node.name, "--resume", cut_off)
    assert done.code == 0, done.error
    assert (served.root / request.node.name).read_bytes() == source.read_bytes()
    assert done.receipt["upload_id"] == cut_off
