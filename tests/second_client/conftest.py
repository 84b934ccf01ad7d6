"""A server in a process of its own, and the second client."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

HERE = Path(__file__).resolve().parent
ENDS_S = 60
"""A process that takes longer hangs. Nothing waits for this on the good way."""

COMMAND = [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "uringd"]
"""As the tests themselves run: without the source tree where they do."""


@dataclass(frozen=True)
class Served:
    """A running `uringd serve`: its root and what to give the second client for it."""

    root: Path
    tcp: tuple[str, str]
    unix: str


@dataclass(frozen=True)
class Outcome:
    """How a run of the second client ended."""

    code: int
    receipt: dict[str, Any]
    error: str


class Node(Protocol):
    def __call__(self, script: str, *args: object) -> Outcome: ...


class Uringd(Protocol):
    def __call__(self, *args: object) -> Outcome: ...


def run(command: list[str], directory: Path) -> Outcome:
    """Run a command to its end; what it prints on stdout is a receipt, or belongs to the error."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=ENDS_S, cwd=directory
    )
    receipt = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Outcome(done.returncode, receipt, done.stderr + ("" if receipt else done.stdout))


@pytest.fixture(scope="session")
def node_command() -> str:
    """Find Node.js, or skip."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture
def node(node_command: str, tmp_path: Path) -> Node:
    """Run a script of this directory."""
    return lambda script, *args: run([node_command, str(HERE / script), *map(str, args)], tmp_path)


@pytest.fixture
def uringd(tmp_path: Path) -> Uringd:
    """Run our own command line."""
    return lambda *args: run([*COMMAND, *map(str, args), "--json"], tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One `uringd serve` for all tests, each of which publishes under a name of its own."""
    directory = tmp_path_factory.mktemp("second-client")
    root, socket = directory / "root", directory / "socket"
    arguments = ["serve", "--root", str(root), "--listen", "tcp://127.0.0.1:0"]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [*COMMAND, *arguments, "--listen", f"unix://{socket}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        [_, tcp], [_, unix] = (process.stdout.readline().split() for _ in range(2))
        host, _, port = tcp.removeprefix("tcp://").rpartition(":")
        yield Served(root, (host, port), unix)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=ENDS_S) == 0
    assert "Traceback" not in (directory / "log").read_text()
    shutil.rmtree(directory)
