"""The command line in processes of its own, and servers for it to talk to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

STUCK_S = 60
"""A process that takes longer hangs. Nothing waits for this on the good way."""

COMMAND = [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "uringd"]
"""Never from the source tree by way of the current directory: it may have no extension, and then
the server would have threads where the tests have a ring."""


class UringdCommand(Protocol):
    def __call__(
        self, *args: object, stdin: bytes | None = None, prefix: tuple[str, ...] = (), **env: str
    ) -> subprocess.CompletedProcess[str]: ...


class StartUringd(Protocol):
    def __call__(
        self, *args: object, prefix: tuple[str, ...] = (), **options: Any
    ) -> subprocess.Popen[str]: ...


@dataclass
class ServerProcess:
    """`uringd serve` in a process of its own."""

    process: subprocess.Popen[str]
    root: Path
    tcp: str
    unix: str

    @property
    def spool(self) -> list[str]:
        return os.listdir(self.root / ".uringd" / "spool")

    @property
    def published(self) -> list[str]:
        return sorted(name for name in os.listdir(self.root) if name != ".uringd")


class ServeProcess(Protocol):
    def __call__(self, *args: object, **options: Any) -> ServerProcess: ...


@pytest.fixture
def uringd(tmp_path: Path) -> UringdCommand:
    """Run the command line to its end."""

    def run(
        *args: object, stdin: bytes | None = None, prefix: tuple[str, ...] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*prefix, *COMMAND, *map(str, args)],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            check=False,
            timeout=STUCK_S,
            cwd=tmp_path,
            env={**os.environ, **env},
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@pytest.fixture
def start_uringd(tmp_path: Path) -> Iterator[StartUringd]:
    """Start the command line with pipes; what still runs at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(
            *args: object, prefix: tuple[str, ...] = (), **options: Any
        ) -> subprocess.Popen[str]:
            options = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
            } | options
            process = subprocess.Popen(
                [*prefix, *COMMAND, *map(str, args)], cwd=tmp_path, **options
            )
            stack.enter_context(_ended(process))
            return process

        yield start


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        # A test may have closed a pipe to say that it has no more.
        if process.stdin is not None and process.stdin.closed:
            process.stdin = None
        process.communicate(timeout=STUCK_S)


@pytest.fixture
def serve_process(tmp_path: Path, start_uringd: StartUringd) -> Iterator[ServeProcess]:
    """Start `uringd serve` on TCP and on a Unix socket, and wait until it listens."""
    roots: list[Path] = []

    def serve(*args: object, **options: Any) -> ServerProcess:
        root = Path(options.pop("root", tmp_path / "served"))
        socket = tmp_path / "served.sock"
        roots.append(root)
        with (tmp_path / "server.log").open("a") as log:
            process = start_uringd(
                *("serve", "--root", root, "--listen", "tcp://127.0.0.1:0"),
                *("--listen", f"unix://{socket}", *args),
                stderr=log,
                **options,
            )
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert [line[:1] for line in lines] == [["listening"]] * 2, "the server did not start"
        return ServerProcess(process, root, lines[0][1], lines[1][1])

    yield serve
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One `uringd serve` for all tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("shared")
    root, socket = directory / "root", directory / "socket"
    arguments = ["serve", "--root", root, "--listen", "tcp://127.0.0.1:0"]
    command = [*COMMAND, *map(str, arguments), "--listen", f"unix://{socket}"]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        [_, tcp], [_, unix] = (process.stdout.readline().split() for _ in range(2))
        yield ServerProcess(process, root, tcp, unix)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STUCK_S) == 0
    assert "Traceback" not in (directory / "log").read_text()
    shutil.rmtree(directory)


@pytest.fixture
def server(shared_server: ServerProcess) -> Iterator[ServerProcess]:
    """A running server with nothing published. Not to be stopped: see `serve_process`."""
    yield shared_server
    assert shared_server.process.poll() is None, "the server died"
    for name in shared_server.published:
        path = shared_server.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def server_log(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Read the log of `serve_process` as it stands."""
    return lambda: [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
