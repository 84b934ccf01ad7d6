"""`uringd ls`, `stat`, `abort`, `doctor`, and what each command says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lacking import need_tool
from uringd.client import connect
from uringd.errors import RefusedError

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess, UringdCommand

UPLOAD_FIELDS = ["upload_id", "name", "state", "accepted", "written", "durable", "size"]


def publish(server: ServerProcess, name: str, content: bytes) -> None:
    path = server.root / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    os.utime(path, (0, 0))


def test_ls_prints_files_in_order(server: ServerProcess, uringd: UringdCommand) -> None:
    assert uringd("ls", server.unix).stdout == ""
    for name in ["b", "a/1", "a/2"]:
        publish(server, name, name.encode())
    done = uringd("ls", server.unix)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [
        ["3", "1970-01-01T00:00:00+00:00", "a/1"],
        ["3", "1970-01-01T00:00:00+00:00", "a/2"],
        ["1", "1970-01-01T00:00:00+00:00", "b"],
    ]
    done = uringd("ls", server.tcp, "a/", "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [facts["name"] for facts in objects] == ["a/1", "a/2"]
    assert list(objects[0]) == ["name", "size", "modified"]


def test_ls_goes_on_behind_the_first_page(server: ServerProcess, uringd: UringdCommand) -> None:
    for number in range(1100):
        publish(server, f"{number:04}", b"")
    done = uringd("ls", server.unix, "--json")
    names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    assert names == [f"{number:04}" for number in range(1100)]


def test_stat_of_a_file(server: ServerProcess, uringd: UringdCommand) -> None:
    publish(server, "a/file", b"12345")
    done = uringd("stat", server.unix, "a/file", "--json")
    facts = json.loads(done.stdout)
    assert facts == {"name": "a/file", "size": 5, "modified": "1970-01-01T00:00:00+00:00"}
    done = uringd("stat", server.unix, "a/file")
    assert dict(line.split(maxsplit=1) for line in done.stdout.splitlines()) == {
        "name": "a/file",
        "size": "5",
        "modified": "1970-01-01T00:00:00+00:00",
    }


async def test_an_unfinished_upload_can_be_looked_at_and_aborted(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    async with connect(server.unix) as client, client.upload("a/x", 12345) as upload:
        await upload.write(bytes(8192))
        done = uringd("ls", server.tcp, "--uploads", "--json")
        [facts] = map(json.loads, done.stdout.splitlines())
        assert list(facts) == UPLOAD_FIELDS
        assert (facts["upload_id"], facts["name"]) == (upload.id, "a/x")
        assert (facts["state"], facts["size"]) == ("receiving", 12345)
        done = uringd("ls", server.tcp, "--uploads")
        assert done.stdout.split() == [upload.id, "receiving", "0", "a/x"]
        done = uringd("stat", server.tcp, upload.id, "--json")
        assert json.loads(done.stdout) == facts
        done = uringd("stat", server.tcp, upload.id)
        assert done.stdout.splitlines()[0].split() == ["upload_id", upload.id]
        done = uringd("abort", server.tcp, upload.id, "--json")
        assert json.loads(done.stdout) == {"aborted": upload.id}
        assert server.spool == []
        with pytest.raises(RefusedError, match="NOT_FOUND"):
            await upload.commit()
    async with connect(server.unix) as client, client.upload("b") as upload:
        assert uringd("abort", server.tcp, upload.id).stdout == f"aborted {upload.id}\n"


def test_what_is_not_there_is_refused_in_one_sentence(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    for arguments in [
        ("stat", server.unix, "nothing"),
        ("stat", server.unix, "0" * 32),
        ("abort", server.unix, "0" * 32),
        ("stat", server.unix, "../out"),
    ]:
        done = uringd(*arguments)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("uringd: ") and done.stderr.count("\n") == 1


def test_what_is_no_id_is_a_usage_error(server: ServerProcess, uringd: UringdCommand) -> None:
    for word in ["nonsense", "0" * 31, "X" * 32]:
        done = uringd("abort", server.unix, word)
        assert (done.returncode, done.stdout) == (2, "")
        assert "id" in done.stderr


def test_a_prefix_that_is_no_text_is_one_sentence(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    done = uringd("ls", server.unix, os.fsdecode(b"caf\xe9"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("uringd: ") and done.stderr.count("\n") == 1


def test_a_token_that_is_too_long_is_one_sentence(
    server: ServerProcess, uringd: UringdCommand, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("x" * 2000)
    done = uringd("ls", server.unix, "--token-file", tmp_path / "token")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("uringd: ") and done.stderr.count("\n") == 1


def test_no_server_is_a_lost_connection(uringd: UringdCommand, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing"
    for arguments in [("ls", url), ("stat", url, "x"), ("abort", url, "0" * 32)]:
        done = uringd(*arguments)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("uringd: ") and done.stderr.count("\n") == 1


def test_doctor_says_what_there_is_and_leaves_nothing(
    uringd: UringdCommand, tmp_path: Path
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    done = uringd("doctor", directory, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["backend"] == ("io_uring" if facts["available"] else "threads")
    assert isinstance(facts["direct"], bool)
    assert facts["directory"] == str(directory)
    done = uringd("doctor", directory)
    assert done.returncode == 0
    shown = [line.split()[0] for line in done.stdout.splitlines()]
    assert shown == list(facts)
    assert os.listdir(directory) == []


def test_doctor_of_a_directory_that_is_not_there_is_a_local_error(
    uringd: UringdCommand, tmp_path: Path
) -> None:
    done = uringd("doctor", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("uringd: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ["serve", "put", "ls", "stat", "abort", "doctor"]),
        (("serve",), ["--root", "--listen", "--backend", "--token-file", "--log-format"]),
        (("put",), ["--name", "--durability", "--overwrite", "--json", "--resume", "--lanes"]),
        (("ls",), ["--uploads", "--json"]),
        (("stat",), ["--json"]),
        (("abort",), ["UPLOAD_ID"]),
        (("doctor",), ["DIRECTORY"]),
    ],
)
def test_help_names_what_there_is(
    uringd: UringdCommand, command: tuple[str, ...], words: list[str]
) -> None:
    done = uringd(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in words)


def test_the_version_is_said(uringd: UringdCommand) -> None:
    done = uringd("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("uringd, version ")


@pytest.mark.parametrize(
    "url",
    [os.fsdecode(b"unix:///tmp/\xff"), "unix:///tmp/%ff", "unix:///tmp/%00x", "tcp://a..b:1"],
    ids=["latin-1", "quoted latin-1", "zero byte", "empty label"],
)
def test_what_can_be_no_address_is_a_usage_error(uringd: UringdCommand, url: str) -> None:
    done = uringd("ls", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no address" in done.stderr


def test_a_directory_that_cannot_be_read_is_not_left_out_of_a_list(
    serve_process: ServeProcess, uringd: UringdCommand
) -> None:
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        need_tool("setpriv")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    server = serve_process(prefix=prefix)
    publish(server, "a", b"")
    publish(server, "b/c/d", b"")
    (server.root / "b/c").chmod(0)
    done = uringd("ls", server.unix)
    (server.root / "b/c").chmod(0o700)
    assert (done.returncode, done.stdout) == (3, "")
    assert "b/c: Permission denied" in done.stderr and "(IO)" in done.stderr
    assert [line.split()[-1] for line in uringd("ls", server.unix).stdout.splitlines()] == [
        "a",
        "b/c/d",
    ]
