"""`uringd put` as its users meet it: what it prints, how it ends, and what is left after it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from tests.lacking import need_tool
from uringd.client import connect
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Control, Data, FrameType, crc32c

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess, StartUringd, UringdCommand
    from tests.uringd.conftest import Script, ScriptedServer
    from uringd.urls import UnixUrl

    Scripted = Callable[[Script], Awaitable[UnixUrl]]

Content = Callable[[int], bytes]

MIB = 1 << 20
SLOT_BYTES = 64 << 10
ENDS_S = 60

RECEIPT_FIELDS = [
    *("upload_id", "name", "size", "crc32c", "durability", "backend", "direct", "transport"),
    *("seconds", "sent_bytes", "instance_id", "resumed", "lanes"),
]


@pytest.fixture
def source(tmp_path: Path, content: Content) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(content(3 * MIB + 17))
    return path


def feed(process: subprocess.Popen[str], data: bytes) -> None:
    """Write to a process's standard input and leave it open."""
    assert process.stdin is not None
    view = memoryview(data)
    while view:
        view = view[os.write(process.stdin.fileno(), view) :]


def said(process: subprocess.Popen[str]) -> str:
    """Wait for a process's end; the result is what it said on stderr, one sentence."""
    process.wait(timeout=ENDS_S)
    assert process.stderr is not None
    text = process.stderr.read()
    check_sentence(text)
    return text


def check_sentence(text: str) -> None:
    assert text.startswith("uringd: ") and text.endswith("\n")
    assert text.count("\n") == 1, text


async def put_is_in_the_middle(server: ServerProcess, process: subprocess.Popen[str]) -> str:
    """Send so much that a part of it is written, and return the upload's id."""
    feed(process, bytes(3 * MIB + 5))
    with trio.fail_after(ENDS_S):
        async with connect(server.unix) as client:
            while True:
                for upload in (await client.list_uploads()).uploads:
                    if upload.written >= 2 * MIB:
                        return upload.upload_id


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_put_publishes_and_prints_its_receipt_as_json(
    server: ServerProcess, uringd: UringdCommand, source: Path, transport: str, *, stdin: bool
) -> None:
    data = source.read_bytes()
    url = server.tcp if transport == "tcp" else server.unix
    if stdin:
        done = uringd("put", "-", url, "--name", "a/b", "--json", stdin=data)
    else:
        done = uringd("put", source, url, "--name", "a/b", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    receipt = json.loads(done.stdout.splitlines()[-1])
    assert list(receipt) == RECEIPT_FIELDS
    assert (receipt["name"], receipt["size"], receipt["sent_bytes"]) == (
        "a/b",
        len(data),
        len(data),
    )
    assert receipt["crc32c"] == f"{crc32c(data):08x}"
    assert (receipt["durability"], receipt["transport"]) == ("published", transport)
    assert len(receipt["upload_id"]) == len(receipt["instance_id"]) == 32
    assert (server.root / "a/b").read_bytes() == data


def test_put_of_nothing_publishes_an_empty_file(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    done = uringd("put", "-", server.unix, "--name", "empty", "--json")
    assert json.loads(done.stdout)["size"] == 0
    assert (server.root / "empty").read_bytes() == b""


def test_put_prints_a_receipt_for_people(
    server: ServerProcess, uringd: UringdCommand, source: Path
) -> None:
    done = uringd("put", source, server.tcp)
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(facts) == RECEIPT_FIELDS
    assert (facts["name"], facts["size"]) == ("source.bin", str(3 * MIB + 17))
    assert facts["direct"] in {"true", "false"}


@pytest.mark.parametrize("level", ["written", "durable", "published"])
def test_put_promises_what_was_asked_for(
    server: ServerProcess, uringd: UringdCommand, source: Path, level: str
) -> None:
    done = uringd("put", source, server.unix, "--durability", level, "--json")
    assert json.loads(done.stdout)["durability"] == level


def test_put_replaces_a_file_only_when_told_to(
    server: ServerProcess, uringd: UringdCommand, source: Path
) -> None:
    assert uringd("put", "-", server.unix, "--name", "source.bin", stdin=b"old").returncode == 0
    done = uringd("put", source, server.unix)
    assert (done.returncode, done.stdout) == (3, "")
    check_sentence(done.stderr)
    assert "EXISTS" in done.stderr and "overwrite" in done.stderr
    assert (server.root / "source.bin").read_bytes() == b"old"
    assert uringd("put", source, server.unix, "--overwrite").returncode == 0
    assert (server.root / "source.bin").read_bytes() == source.read_bytes()
    assert server.spool == []


def test_put_shows_its_progress_on_a_terminal_and_is_quiet_when_told(
    server: ServerProcess, start_uringd: StartUringd, source: Path
) -> None:
    for quiet in [False, True]:
        controller, terminal = pty.openpty()
        arguments = ["put", source, server.unix, "--overwrite", *(["--quiet"] if quiet else [])]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
        process = start_uringd(*arguments, stderr=terminal, env=environment)
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(controller, 1 << 16):
                shown += piece
        except OSError:  # EIO: nobody holds the terminal any more
            pass
        finally:
            os.close(controller)
        assert process.wait(timeout=ENDS_S) == 0
        assert (b"source.bin" in shown) is not quiet


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b", ".uringd/x", "a\nb", "x" * 256])
def test_a_bad_name_is_refused(
    server: ServerProcess, uringd: UringdCommand, source: Path, name: str
) -> None:
    done = uringd("put", source, server.unix, "--name", name)
    assert (done.returncode, done.stdout) == (3, "")
    check_sentence(done.stderr)
    assert "BAD_NAME" in done.stderr
    assert (server.published, server.spool) == ([], [])


@pytest.mark.parametrize("name", ["a" * 70_000, os.fsdecode(b"caf\xe9")], ids=["long", "latin-1"])
def test_a_name_that_cannot_even_be_sent_is_one_sentence_too(
    server: ServerProcess, uringd: UringdCommand, source: Path, name: str
) -> None:
    done = uringd("put", source, server.unix, "--name", name)
    assert done.returncode in {2, 3}
    check_sentence(done.stderr)
    assert "name" in done.stderr


def test_what_cannot_be_had_is_refused_and_never_left_out_in_silence(
    server: ServerProcess, uringd: UringdCommand, source: Path
) -> None:
    for mode in ("copy", "sealed", "slab"):
        done = uringd("put", source, server.tcp, "--transport", mode)
        assert (done.returncode, done.stdout) == (3, "")
        check_sentence(done.stderr)
        assert "UNSUPPORTED" in done.stderr and "Unix socket" in done.stderr
    done = uringd("put", source, server.unix, "--transport", "copy", "--read-back")
    assert done.returncode == 2 and "--transport slab" in done.stderr
    assert uringd("put", source, server.unix, "--transport", "socket").returncode == 0
    assert server.published == ["source.bin"]


def test_the_receipt_says_how_the_bytes_came(
    server: ServerProcess, uringd: UringdCommand, source: Path, needs_io_uring: None
) -> None:
    for options, transport in [
        ((), "unix"),
        (("--transport", "socket"), "unix"),
        (("--transport", "copy"), "copy"),
        (("--transport", "sealed"), "sealed"),
        (("--transport", "slab"), "slab"),
        (("--transport", "slab", "--read-back"), "slab-read-back"),
    ]:
        done = uringd("put", source, server.unix, *options, "--overwrite", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["transport"] == transport


def test_what_cannot_be_read_is_a_local_error(
    server: ServerProcess, uringd: UringdCommand, tmp_path: Path
) -> None:
    for file, reason in [
        (tmp_path / "nothing", "No such file or directory"),
        (tmp_path, "directory"),
        ("/proc/self/mem", "Input/output error"),
    ]:
        done = uringd("put", file, server.unix, "--name", "x")
        assert (done.returncode, done.stdout) == (5, "")
        check_sentence(done.stderr)
        assert reason in done.stderr
    assert (server.published, server.spool) == ([], [])


def test_a_file_of_somebody_else_is_a_local_error(
    server: ServerProcess, uringd: UringdCommand, source: Path
) -> None:
    source.chmod(0)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        need_tool("setpriv")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    done = uringd("put", source, server.unix, prefix=prefix)
    assert done.returncode == 5
    check_sentence(done.stderr)
    assert "Permission denied" in done.stderr


def test_no_server_is_a_lost_connection(
    uringd: UringdCommand, source: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for url in [f"unix://{tmp_path}/nothing", f"tcp://127.0.0.1:{port}"]:
        done = uringd("put", source, url)
        assert (done.returncode, done.stdout) == (4, "")
        check_sentence(done.stderr)
        assert url in done.stderr and "is uringd serving there?" in done.stderr


def test_usage_errors_name_what_is_wrong(
    uringd: UringdCommand, source: Path, tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/nothing"
    for arguments, word in [
        (("put", source, url, "--unknown"), "--unknown"),
        (("put", source), "URL"),
        (("put", source, "nonsense"), "is no address"),
        (("put", "-", url), "--name"),
        (("put", source, url, "--lanes", "0"), "--lanes"),
        (("put", source, url, "--durability", "maybe"), "--durability"),
        (("nonsense",), "nonsense"),
    ]:
        done = uringd(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert word in done.stderr


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_server_that_is_killed_and_started_again_costs_put_nothing_but_time(
    serve_process: ServeProcess, start_uringd: StartUringd, lanes: int
) -> None:
    server = serve_process()
    arguments = ("--name", "x", "--json", "--lanes", lanes)
    process = start_uringd("put", "-", server.unix, *arguments)
    await put_is_in_the_middle(server, process)
    server.process.kill()
    server.process.wait(timeout=ENDS_S)
    again = serve_process()
    feed(process, b"the rest")
    stdout, stderr = process.communicate(timeout=ENDS_S)
    assert (process.returncode, stderr) == (0, "")
    assert json.loads(stdout)["size"] == 3 * MIB + 5 + 8
    assert (again.root / "x").read_bytes() == bytes(3 * MIB + 5) + b"the rest"
    assert again.spool == []


async def test_a_put_that_gives_up_names_the_command_that_goes_on(
    serve_process: ServeProcess, start_uringd: StartUringd, uringd: UringdCommand
) -> None:
    server = serve_process()
    process = start_uringd("put", "-", server.unix, "--name", "x", "--retry-for", "0.1")
    data = bytes(3 * MIB + 5)
    upload_id = await put_is_in_the_middle(server, process)
    server.process.kill()
    server.process.wait(timeout=ENDS_S)
    assert server.spool == [f"{upload_id}.part"]
    assert process.stdin is not None
    process.stdin.close()
    text = said(process)
    assert process.returncode == 4
    assert f"uringd put --resume {upload_id} - " in text
    again = serve_process()
    done = uringd("put", "-", server.unix, "--resume", upload_id, "--json", stdin=data)
    assert (done.returncode, done.stderr) == (0, "")
    receipt = json.loads(done.stdout)
    assert (receipt["upload_id"], receipt["name"]) == (upload_id, "x")
    assert (again.root / "x").read_bytes() == data


async def test_data_that_ends_before_what_is_durable_is_not_the_data(
    server: ServerProcess, start_uringd: StartUringd, uringd: UringdCommand
) -> None:
    """A producer that failed, or an empty file, must not publish what came before."""
    process = start_uringd("put", "-", server.unix, "--name", "x")
    upload_id = await put_is_in_the_middle(server, process)
    process.kill()
    process.wait(timeout=ENDS_S)
    with trio.fail_after(ENDS_S):
        async with connect(server.unix) as client:
            while not (found := (await client.stat(upload_id=upload_id)).upload).durable:
                await trio.lowlevel.checkpoint()
    for less in (b"", bytes(found.durable - 1)):
        done = uringd("put", "-", server.unix, "--resume", upload_id, stdin=less)
        assert done.returncode == 5, done
        assert "changed" in done.stderr
        assert (server.published, server.spool) == ([], [f"{upload_id}.part"])
    assert uringd("abort", server.unix, upload_id).returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_put_publishes_nothing(
    server: ServerProcess, start_uringd: StartUringd, signum: int
) -> None:
    process = start_uringd("put", "-", server.unix, "--name", "x", "--json")
    upload_id = await put_is_in_the_middle(server, process)
    process.send_signal(signum)
    process.wait(timeout=ENDS_S)
    assert process.stderr is not None
    text = process.stderr.read()
    if signum == signal.SIGINT:
        assert process.returncode == 130
        check_sentence(text)
        assert "nothing was published" in text
    else:
        assert process.returncode != 0
        assert "Traceback" not in text
    with trio.fail_after(ENDS_S):
        async with connect(server.unix) as client:
            if signum == signal.SIGTERM:
                await client.abort(upload_id)  # a client that just died may come back for it
            while (await client.list_uploads()).uploads:
                pass
            assert (server.published, server.spool) == ([], [])
            async with client.upload("x") as upload:
                await upload.commit()


async def test_a_server_that_leaves_lets_put_finish(
    serve_process: ServeProcess, start_uringd: StartUringd, uringd: UringdCommand
) -> None:
    server = serve_process()
    process = start_uringd("put", "-", server.unix, "--name", "x", "--json")
    await put_is_in_the_middle(server, process)
    async with connect(server.unix) as idle:
        server.process.send_signal(signal.SIGTERM)
        while True:  # until the server says that it leaves
            event = await idle.link.next_event()
            if event.type is FrameType.SHUTDOWN:
                break
    late = uringd("put", "-", server.unix, "--name", "late", "--retry-for", "0")
    assert late.returncode == 3
    assert "SHUTTING_DOWN" in late.stderr
    feed(process, b"the rest")
    stdout, stderr = process.communicate(timeout=ENDS_S)
    assert (process.returncode, stderr) == (0, "")
    assert json.loads(stdout)["size"] == 3 * MIB + 5 + 8
    assert server.process.wait(timeout=ENDS_S) == 0
    assert (server.published, server.spool) == (["x"], [])


async def test_who_does_not_speak_the_protocol_is_a_lost_connection(
    scripted: Scripted, start_uringd: StartUringd, source: Path
) -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(FrameType.HELLO)
        await server.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 10)

    process = start_uringd("put", source, await scripted(script))
    text = await trio.to_thread.run_sync(said, process)
    assert process.returncode == 4
    assert "does not speak this protocol" in text


@pytest.mark.parametrize("change", ["shrinks", "shrinks to a part of a chunk", "grows"])
async def test_a_file_that_changes_while_it_is_sent_is_a_local_error(
    scripted: Scripted, start_uringd: StartUringd, tmp_path: Path, change: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(32 * SLOT_BYTES))
    aborted = trio.Event()

    async def script(server: ScriptedServer) -> None:
        await server.greet(credit=1)
        await server.begin()
        offset, payload = await server.chunk()
        # The client has no credit: it is far from the end of the file, whatever it read ahead.
        size = {"shrinks": 20, "grows": 40}.get(change, 20.5) * SLOT_BYTES
        os.truncate(file, int(size))
        await server.acknowledge(offset + len(payload))
        while isinstance(event := await server.next_event(), Data):
            payload = await server.payload(event)
            await server.acknowledge(event.offset + len(payload))
        assert isinstance(event, Control) and event.type is FrameType.ABORT
        await server.reply(event, pb.AbortReply())
        aborted.set()

    process = start_uringd("put", file, await scripted(script))
    text = await trio.to_thread.run_sync(said, process)
    assert process.returncode == 5
    assert "another size now" in text
    with trio.fail_after(ENDS_S):
        await aborted.wait()


def test_data_from_behind_the_end_of_a_file_is_an_empty_file(
    server: ServerProcess, start_uringd: StartUringd, source: Path
) -> None:
    with source.open("rb") as file:
        file.seek(4 * MIB)
        process = start_uringd("put", "-", server.unix, "--name", "x", stdin=file)
    assert process.wait(timeout=ENDS_S) == 0
    assert (server.root / "x").read_bytes() == b""


def test_a_file_that_hides_its_size_is_read_to_its_end(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    file = Path("/proc/filesystems")
    assert file.stat().st_size == 0
    done = uringd("put", file, server.unix)
    assert (done.returncode, done.stderr) == (0, "")
    assert (server.root / "filesystems").read_bytes() == file.read_bytes() != b""


def test_a_closed_standard_input_is_said_to_be_closed(
    server: ServerProcess, uringd: UringdCommand
) -> None:
    without_stdin = ("sh", "-c", 'exec "$@" <&-', "sh")
    done = uringd("put", "-", server.unix, "--name", "x", prefix=without_stdin)
    assert (done.returncode, done.stdout) == (5, "")
    check_sentence(done.stderr)
    assert "standard input: it is closed" in done.stderr
    assert server.published == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_receipt_that_cannot_be_printed_is_no_failed_upload(
    server: ServerProcess, start_uringd: StartUringd, source: Path, options: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        process = start_uringd("put", source, server.unix, *options, stdout=full)
    text = said(process)
    assert process.returncode == 5
    assert "is published" in text and "No space left on device" in text
    assert (server.root / "source.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("file", ["-", "source.bin"])
def test_an_empty_name_is_a_usage_error(
    server: ServerProcess, uringd: UringdCommand, source: Path, file: str
) -> None:
    done = uringd("put", file, server.unix, "--name", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--name is empty" in done.stderr
    assert server.published == []


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A TCP port with a full queue that nobody empties: connecting to it does not end."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        while not is_connecting(port):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        yield port


def is_connecting(port: int, others: int = 0) -> bool:
    """Whether more than that many are in SYN_SENT, state 02 of /proc/net/tcp (proc_net_tcp(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows) > others


def test_ctrl_c_while_it_connects_is_one_sentence(
    start_uringd: StartUringd, source: Path, deaf_port: int
) -> None:
    process = start_uringd("put", source, f"tcp://127.0.0.1:{deaf_port}")
    while not is_connecting(deaf_port, others=1):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "interrupted" in said(process)
    assert process.returncode == 130


IMPORTING = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == "uringd.putting":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
from uringd.cli import main
main()
"""


def test_ctrl_c_while_it_imports_is_one_sentence(source: Path, tmp_path: Path) -> None:
    isolated = ["-I" if sys.flags.isolated else "-P"]
    arguments = ["put", str(source), f"unix://{tmp_path}/nothing"]
    done = subprocess.run(
        [sys.executable, *isolated, "-c", IMPORTING, *arguments],
        capture_output=True,
        check=False,
        timeout=ENDS_S,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, "")
    check_sentence(done.stderr)
