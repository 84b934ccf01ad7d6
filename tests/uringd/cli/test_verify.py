"""`uringd verify` as operators meet it: beside a server, after its end, and after its kill."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringd.client import connect

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess, StartUringd, UringdCommand

Content = Callable[[int], bytes]

MIB = 1 << 20
ENDS_S = 60
NAMES = ["big", "empty", "small"]


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below ROOT that a write would change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


def flip(path: Path) -> None:
    """Change one bit, as a disk does it: the file's times know nothing of it."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def read_all(fd: int) -> str:
    """Read a terminal until nobody holds its other end any more."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the end
        while piece := os.read(fd, 1 << 16):
            shown += piece
    os.close(fd)
    return shown.decode()


@pytest.fixture
def served(serve_process: ServeProcess, content: Content) -> ServerProcess:
    """A running server with three files."""
    server = serve_process()

    async def publish() -> None:
        async with connect(server.unix) as client:
            for name, length in zip(NAMES, [5 * MIB + 17, 0, 4097], strict=True):
                async with client.upload(name, length) as upload:
                    await upload.write(content(length))
                    await upload.commit()

    trio.run(publish)
    return server


@pytest.mark.parametrize("state", ["running", "stopped", "killed"])
def test_all_is_well_and_nothing_was_written(
    served: ServerProcess, uringd: UringdCommand, state: str
) -> None:
    if state != "running":
        served.process.send_signal(signal.SIGTERM if state == "stopped" else signal.SIGKILL)
        served.process.wait(ENDS_S)
    logs = [path for path in (served.root / ".uringd").iterdir() if path.suffix != ".sqlite3"]
    assert any("-wal" in path.name for path in logs) is (state != "stopped")
    before = snapshot(served.root)
    done = uringd("verify", served.root, "--all")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert sorted(lines) == [f"ok         {name}" for name in NAMES]
    assert summary.startswith("3 files: 3 ok; 5.0 MiB in ")
    assert snapshot(served.root) == before


def test_a_killed_server_can_be_started_again_after_it(
    served: ServerProcess, serve_process: ServeProcess, uringd: UringdCommand
) -> None:
    served.process.kill()
    served.process.wait(ENDS_S)
    assert uringd("verify", served.root, "big").returncode == 0
    again = serve_process(root=served.root)
    assert uringd("verify", again.root, "--all").returncode == 0
    assert "big" in uringd("ls", again.unix).stdout


def test_what_is_wrong_is_said_and_is_the_exit_code(
    served: ServerProcess, uringd: UringdCommand
) -> None:
    flip(served.root / "big")
    (served.root / "small").write_bytes(b"by hand")
    done = uringd("verify", served.root, "big", "small", "empty", "never")
    assert (done.returncode, done.stderr) == (5, "")
    lines = dict(line.split(maxsplit=1)[::-1] for line in done.stdout.splitlines()[:-1])
    found = {name.split(":")[0]: outcome for name, outcome in lines.items()}
    assert found == {"big": "corrupt", "small": "changed", "empty": "ok", "never": "unknown"}
    assert "4 files: 1 ok, 1 corrupt, 1 changed, 1 unknown; " in done.stdout
    quiet = uringd("verify", served.root, "--all", "--quiet")
    assert quiet.returncode == 5
    assert [line.split()[0] for line in sorted(quiet.stdout.splitlines())] == ["changed", "corrupt"]


def test_a_missing_file_is_a_failure_only_where_it_was_named(
    served: ServerProcess, uringd: UringdCommand
) -> None:
    (served.root / "small").unlink()
    for arguments, code in [(["--all"], 0), (["small", "empty"], 5)]:
        done = uringd("verify", served.root, *arguments)
        assert done.returncode == code
        assert "missing    small" in done.stdout
    quiet = uringd("verify", served.root, "--all", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_json_is_a_line_for_each_file_and_one_for_all(
    served: ServerProcess, uringd: UringdCommand, content: Content
) -> None:
    flip(served.root / "small")
    done = uringd("verify", served.root, "small", "big", "--json")
    assert done.returncode == 5
    *lines, last = map(json.loads, done.stdout.splitlines())
    found: dict[str, dict[str, Any]] = {line["name"]: line for line in lines}
    fields = ["outcome", "size", "crc32c", "found_size", "found_crc32c", "direct", "offset"]
    assert list(found["big"]) == ["name", *fields, "reason"]
    assert found["big"]["outcome"] == "ok"
    assert found["big"]["found_crc32c"] == found["big"]["crc32c"]
    assert found["small"]["outcome"] == "corrupt"
    assert found["small"]["found_crc32c"] != found["small"]["crc32c"]
    summary = last["summary"]
    assert (summary["files"], summary["ok"], summary["corrupt"]) == (2, 1, 1)
    assert summary["bytes"] == 5 * MIB + 17 + 4097


def test_what_cannot_be_verified_at_all_is_one_sentence(
    uringd: UringdCommand, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    nothing = tmp_path / "nothing"
    for arguments, code, words in [
        ((tmp_path,), 2, "--all"),
        ((tmp_path, "name", "--all"), 2, "--all"),
        ((), 2, "ROOT"),
        ((tmp_path, "--all"), 5, "was this directory served?"),
        ((tmp_path, "name", "--json"), 5, "was this directory served?"),
        ((nothing, "--all"), 5, f"cannot read {nothing}: No such file"),
        ((tmp_path / "file", "--all"), 5, "Not a directory"),
    ]:
        done = uringd("verify", *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1 or code == 2
    assert os.listdir(tmp_path) == ["file"]


def test_a_terminal_gets_a_bar_and_a_file_gets_the_lines(
    served: ServerProcess, start_uringd: StartUringd, tmp_path: Path
) -> None:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    controller, terminal = pty.openpty()
    with (tmp_path / "lines").open("w") as lines:
        process = start_uringd(
            *("verify", served.root, "--all"),
            stdout=lines,
            stderr=terminal,
            stdin=None,
            env=environment,
        )
    os.close(terminal)
    shown = read_all(controller)
    assert process.wait(ENDS_S) == 0
    *said, _ = (tmp_path / "lines").read_text().splitlines()
    assert sorted(said) == [f"ok         {name}" for name in NAMES]
    assert "verify" in shown and "ok  " not in shown


def test_on_one_terminal_the_lines_stand_above_the_bar(
    served: ServerProcess, start_uringd: StartUringd
) -> None:
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    for quiet in [False, True]:
        controller, terminal = pty.openpty()
        process = start_uringd(
            *("verify", served.root, "--all", *(["--quiet"] if quiet else [])),
            stdout=terminal,
            stderr=terminal,
            stdin=None,
            env=environment,
        )
        os.close(terminal)
        shown = read_all(controller)
        assert process.wait(ENDS_S) == 0
        assert ("verify" in shown) is not quiet
        for name in NAMES:
            assert (f"ok         {name}" in shown) is not quiet


def test_ctrl_c_ends_it_at_once(
    served: ServerProcess, start_uringd: StartUringd, uringd: UringdCommand
) -> None:
    """One file is of a size that nobody waits for."""
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(ENDS_S)
    os.truncate(served.root / "big", 1 << 43)
    db = sqlite3.connect(served.root / ".uringd" / "catalog.sqlite3")
    with db:
        db.execute("UPDATE receipts SET size = ? WHERE name = 'big'", (1 << 43,))
    db.close()
    process = start_uringd("verify", served.root, "big", "empty")
    assert process.stdout is not None
    assert process.stdout.readline() == "ok         empty\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=ENDS_S)
    assert (process.returncode, stdout, stderr) == (130, "", "uringd: interrupted\n")


def test_a_reader_that_has_enough_ends_it_without_a_traceback(
    served: ServerProcess, start_uringd: StartUringd
) -> None:
    process = start_uringd("verify", served.root, "--all")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=ENDS_S)
    assert (process.returncode, stderr) == (1, "")
