"""A client that was written from the protocol's text alone, against the real server."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uringd.wire import crc32c

if TYPE_CHECKING:
    from tests.second_client.conftest import Node, Served

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parents[1] / "protos" / "vectors"
MIB = 1 << 20
SIZES = [0, 1, 4095, 4096, 4097, 2 * MIB + 1, 9 * MIB]
RECEIPT_FIELDS = {
    *("upload_id", "name", "size", "crc32c", "durability", "backend", "direct", "transport"),
    *("seconds", "instance_id", "unchanged", "sent_bytes"),
}


def write_source(directory: Path, size: int) -> Path:
    path = directory / f"{size}.bin"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("size", SIZES)
def test_it_uploads_a_file_and_reads_the_receipt(
    node: Node, served: Served, tmp_path: Path, size: int, transport: str
) -> None:
    source = write_source(tmp_path, size)
    where = served.tcp if transport == "tcp" else (served.unix,)
    name = f"{transport}/{size}"
    done = node("put.mjs", source, *where, name)
    assert (done.code, done.error) == (0, "")
    data = source.read_bytes()
    assert (served.root / name).read_bytes() == data
    receipt = done.receipt
    assert receipt.keys() == RECEIPT_FIELDS
    expected = {
        "name": name,
        "size": size,
        "crc32c": crc32c(data),
        "durability": "PUBLISHED",
        "transport": transport,
        "sent_bytes": size,
    }
    assert {key: receipt[key] for key in expected} == expected
    assert len(receipt["upload_id"]) == 32 and len(receipt["instance_id"]) == 32
    assert receipt["backend"] in {"io_uring", "threads"}
    assert receipt["seconds"] > 0


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", ".uringd/a", "a\nb"])
def test_a_wrong_name_is_refused(node: Node, served: Served, tmp_path: Path, name: str) -> None:
    done = node("put.mjs", write_source(tmp_path, 1), served.unix, name)
    assert done.code == 3
    assert done.error.startswith("put.mjs: BAD_NAME: ")


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced(
    node: Node, served: Served, tmp_path: Path
) -> None:
    first, second = write_source(tmp_path, 1), write_source(tmp_path, 2)
    assert node("put.mjs", first, served.unix, "taken").code == 0
    done = node("put.mjs", second, served.unix, "taken")
    assert done.code == 3 and done.error.startswith("put.mjs: EXISTS: ")
    assert (served.root / "taken").read_bytes() == first.read_bytes()
    assert node("put.mjs", "--overwrite", second, served.unix, "taken").code == 0
    assert (served.root / "taken").read_bytes() == second.read_bytes()


def test_nobody_there_is_told_apart_from_a_refusal(node: Node, tmp_path: Path) -> None:
    source = write_source(tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for where in (("127.0.0.1", port), (f"unix://{tmp_path}/none",)):
        done = node("put.mjs", source, *where, "file")
        assert done.code == 4
        assert done.error.startswith("put.mjs: connect E")


def test_an_id_that_nobody_has_is_refused(node: Node, served: Served, tmp_path: Path) -> None:
    done = node("put.mjs", "--resume", "0" * 32, write_source(tmp_path, 1), served.unix, "file")
    assert done.code == 3


def test_it_reads_every_vector_of_a_server_as_the_text_has_it(node: Node) -> None:
    files = [VECTORS / "valid.json", VECTORS / "malformed.json"]
    done = node("vectors.mjs", *files)
    assert done.code == 0, done.error
    assert int(done.error.split()[0]) >= 90


def test_its_table_of_messages_is_fresh() -> None:
    if not (Path(sys.executable).parent / "protoc").exists():
        pytest.skip("no protoc beside this interpreter: pip install '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-I", HERE / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
