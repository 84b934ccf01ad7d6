"""`uringd serve` as its operators meet it: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.lacking import lacking, need_root
from uringd.client import connect
from uringd.errors import ConnectionLostError

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess, StartUringd, UringdCommand

MIB = 1 << 20
ENDS_S = 60
RSS_GROWTH_MAX = 16 * MIB

Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that nobody can write to."""
    need_root("mounting a file system")
    point = tmp_path / "read-only"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(point)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lacking(f"no mounts here: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def check_refused(done: subprocess.CompletedProcess[str], code: int, word: str) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("uringd: ") if code != 2 else last.startswith("Error: "), done.stderr
    assert word in last


async def test_a_term_signal_ends_the_server_and_removes_its_socket(
    serve_process: ServeProcess, server_log: Log, tmp_path: Path
) -> None:
    server = serve_process()
    assert server.tcp.startswith("tcp://127.0.0.1:") and not server.tcp.endswith(":0")
    assert server.unix == f"unix://{tmp_path}/served.sock"
    async with connect(server.tcp) as idle:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=ENDS_S) == 0
        with pytest.raises(ConnectionLostError):
            await idle.ping()
    assert not (tmp_path / "served.sock").exists()
    events = [line["event"] for line in server_log()]
    assert "shutting down" in events


async def test_a_second_signal_ends_what_the_first_let_finish(
    serve_process: ServeProcess, server_log: Log
) -> None:
    server = serve_process()
    with pytest.raises(ConnectionLostError) as caught:
        async with connect(server.unix) as client, client.upload("x") as upload:
            await upload.write(bytes(2 * MIB))
            server.process.send_signal(signal.SIGINT)
            while "SHUTTING_DOWN" not in await _refusal_of_a_new_client(server):
                pass
            assert server.process.poll() is None, "it waits for the upload"
            server.process.send_signal(signal.SIGINT)
            while True:
                await client.ping()
    assert caught.value.upload_id == upload.id
    assert server.process.wait(timeout=ENDS_S) == 0
    assert (server.spool, server.published) == ([f"{upload.id}.part"], [])
    [event] = [line for line in server_log() if line["event"] == "upload"]
    assert event["outcome"] == "suspended"


async def _refusal_of_a_new_client(server: ServerProcess) -> str:
    try:
        async with connect(server.unix):
            return ""
    except Exception as exc:  # noqa: BLE001  # its text is looked at
        return str(exc)


async def test_what_a_killed_server_held_is_resumed_at_the_next(
    serve_process: ServeProcess,
) -> None:
    server = serve_process()
    with pytest.raises(ConnectionLostError):
        async with connect(server.unix) as client, client.upload("x") as upload:
            await upload.write(bytes(3 * MIB))
            server.process.kill()
            server.process.wait(timeout=ENDS_S)
            await client.ping()
    assert server.spool == [f"{upload.id}.part"]
    again = serve_process()
    async with connect(again.unix) as client, client.resume(upload.id) as resumed:
        await resumed.write(bytes(3 * MIB))
        await resumed.commit()
    assert (again.spool, again.published) == ([], ["x"])


def test_the_log_is_one_json_object_a_line_and_one_line_an_upload(
    serve_process: ServeProcess, server_log: Log, uringd: UringdCommand
) -> None:
    server = serve_process("--slot-bytes", "4096")
    uringd("put", "-", server.unix, "--name", "x", stdin=bytes(100 * 4096))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=ENDS_S)
    events = [line for line in server_log() if line["event"] == "upload"]
    assert [(e["outcome"], e["name"], e["accepted_bytes"]) for e in events] == [
        ("published", "x", 100 * 4096)
    ]
    assert len(server_log()) < 10, "not an event for each chunk"


def test_the_log_can_be_for_people(serve_process: ServeProcess, tmp_path: Path) -> None:
    server = serve_process("--log-format", "console")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=ENDS_S)
    text = (tmp_path / "server.log").read_text()
    assert "shutting down" in text and not text.lstrip().startswith("{")


def test_threads_can_be_asked_for(serve_process: ServeProcess, uringd: UringdCommand) -> None:
    server = serve_process("--backend", "threads")
    done = uringd("put", "-", server.tcp, "--name", "x", "--json", stdin=b"content")
    assert json.loads(done.stdout)["backend"] == "threads"
    assert (server.root / "x").read_bytes() == b"content"


def test_a_token_opens_the_server_to_those_who_have_it(
    serve_process: ServeProcess, uringd: UringdCommand, tmp_path: Path
) -> None:
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text("long random word\nand a remark\n")
    wrong.write_text("guess\n")
    server = serve_process("--listen", "tcp://0.0.0.0:0", "--token-file", token)
    for options, code in [
        ((), 3),
        (("--token-file", wrong), 3),
        (("--token-file", token), 0),
    ]:
        done = uringd("ls", server.tcp, *options)
        assert done.returncode == code
        if code:
            assert "UNAUTHORIZED" in done.stderr and done.stderr.count("\n") == 1
    assert uringd("ls", server.tcp, URINGD_TOKEN_FILE=str(token)).returncode == 0


def test_beyond_loopback_there_is_no_server_without_a_token(
    uringd: UringdCommand, serve_process: ServeProcess, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for address in ["tcp://0.0.0.0:0", "tcp://[::]:0"]:
        done = uringd("serve", "--root", root, "--listen", address)
        check_refused(done, 2, "--insecure")
    assert not root.exists()
    server = serve_process("--listen", "tcp://0.0.0.0:0", "--insecure")
    assert server.process.poll() is None


def test_what_keeps_a_server_from_starting_is_one_sentence(
    uringd: UringdCommand, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").write_bytes(b" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    root = ("--root", tmp_path / "root")
    here = ("--listen", f"unix://{tmp_path}/s")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = ("--listen", f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        for arguments, code, word in [
            (("--root", "/proc/nothing", *here), 5, "/proc/nothing"),
            (("--root", tmp_path / "file", *here), 5, "File exists"),
            ((*root, *in_use), 5, "in use"),
            ((*root, *here, *in_use), 5, "in use"),
            ((*root, "--listen", f"unix://{tmp_path}/no/where"), 5, "No such file"),
            ((*root, "--listen", "tcp://host.invalid:0", "--insecure"), 5, "host.invalid"),
            ((*root, *here, "--token-file", tmp_path / "nothing"), 5, "token file"),
            ((*root, *here, "--token-file", tmp_path / "empty"), 5, "empty"),
            ((*root, *here, "--token-file", tmp_path / "binary"), 5, "UTF-8"),
            ((*root, *here, "--slot-bytes", "5000"), 2, "multiple of 4096"),
            ((*root, *here, "--slot-bytes", "1"), 2, "--slot-bytes"),
            ((*root, *here, "--slots", "1"), 2, "--slots"),
            ((*root, *here, "--workers", "0"), 2, "--workers"),
            ((*root, "--listen", "nonsense"), 2, "is no address"),
            (here, 2, "--root"),
        ]:
            check_refused(uringd("serve", *arguments), code, word)
    assert not (tmp_path / "s").exists(), "a server that did not start leaves no socket"


@pytest.mark.root
def test_a_root_that_cannot_be_written_is_one_sentence(
    uringd: UringdCommand, read_only: Path, tmp_path: Path
) -> None:
    for root in [read_only, read_only / "below"]:
        done = uringd("serve", "--root", root, "--listen", f"unix://{tmp_path}/s")
        check_refused(done, 5, "Read-only file system")


def test_a_second_server_on_the_same_root_is_one_sentence(
    serve_process: ServeProcess, uringd: UringdCommand, tmp_path: Path
) -> None:
    server = serve_process()
    done = uringd("serve", "--root", server.root, "--listen", f"unix://{tmp_path}/s")
    check_refused(done, 5, "another uringd serves")
    assert uringd("ls", server.unix).returncode == 0


def test_memory_does_not_grow_with_an_upload(
    serve_process: ServeProcess, start_uringd: StartUringd
) -> None:
    server = serve_process()
    status = Path(f"/proc/{server.process.pid}/status")

    def peak_after(mebibytes: int) -> int:
        with subprocess.Popen(
            ["head", "-c", str(mebibytes * MIB), "/dev/zero"], stdout=subprocess.PIPE
        ) as zeros:
            process = start_uringd(
                *("put", "-", server.unix, "--name", str(mebibytes), "--durability", "written"),
                stdin=zeros.stdout,
            )
            assert process.wait(timeout=ENDS_S) == 0
        published = server.root / str(mebibytes)
        assert published.stat().st_size == mebibytes * MIB
        published.unlink()
        [line] = [line for line in status.read_text().splitlines() if "VmHWM" in line]
        return int(line.split()[1]) << 10

    small = peak_after(32)
    assert peak_after(512) - small < RSS_GROWTH_MAX


async def test_many_connections_that_come_and_go_leave_no_descriptor(
    serve_process: ServeProcess,
) -> None:
    server = serve_process()
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    before = len(os.listdir(descriptors))
    for number in range(50):
        url = server.tcp if number % 2 else server.unix
        async with connect(url) as client, client.upload(f"{number}") as upload:
            await upload.write(b"x")
    with trio.fail_after(ENDS_S):
        async with connect(server.unix) as client:
            while len(os.listdir(descriptors)) > before + 1:
                await client.ping()
    assert (server.spool, server.published) == ([], [])


@pytest.mark.parametrize("limit", [6, 12])
def test_too_few_descriptors_are_one_sentence(
    start_uringd: StartUringd, tmp_path: Path, limit: int
) -> None:
    limited = ("sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")
    process = start_uringd(
        *("serve", "--root", tmp_path / "root", "--listen", f"unix://{tmp_path}/s"), prefix=limited
    )
    stdout, stderr = process.communicate(timeout=ENDS_S)
    assert "Traceback" not in stderr
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    check_refused(done, 5, "Too many open files")


@pytest.mark.parametrize(("kind", "warned"), [("-Sn", False), ("-n", True)])
async def test_a_limit_of_descriptors_is_raised_or_said_to_be_too_low(
    serve_process: ServeProcess, server_log: Log, kind: str, *, warned: bool
) -> None:
    limited = ("sh", "-c", f'ulimit {kind} 100; exec "$@"', "sh")
    server = serve_process(prefix=limited)
    async with connect(server.tcp) as client:
        await client.ping()
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert (int(line.split()[3]) == 100) == warned
    events = [event for event in server_log() if event["event"] == "few descriptors"]
    assert [event["limit"] for event in events] == ([100] if warned else [])
