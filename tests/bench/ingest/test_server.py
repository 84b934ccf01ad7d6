"""server.py: a program that is started, waited for and ended with all that it started."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

import pytest

from bench.harness.ingest.server import Server, free_port, program
from bench.harness.measurement import CannotRunError
from bench.harness.meter import family_of

if TYPE_CHECKING:
    from pathlib import Path

END_S = 30.0
"""How long the kernel may take for a process that was killed."""

LISTEN = """
import os, signal, socket, sys
{before}
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    signal.pause()
"""


def server(tmp_path: Path, before: str) -> Server:
    port = free_port()
    command = [sys.executable, "-IS", "-c", LISTEN.format(before=before), str(port)]
    return Server(command, port, tmp_path / "log")


def test_one_that_takes_connections_is_ready_and_goes_when_it_is_asked(tmp_path: Path) -> None:
    with server(tmp_path, "") as running:
        assert running.peak_rss_bytes()
        assert running.cpu_s() >= (0, 0)
        assert running.stop() == 0


def test_an_exit_code_that_is_not_that_of_a_signal_is_told(tmp_path: Path) -> None:
    with server(tmp_path, "signal.signal(15, lambda *_: sys.exit(3))") as running:
        assert running.stop() == 3


def test_one_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotRunError, match="did not start: no such disk"),
        server(tmp_path, "sys.exit('no such disk')"),
    ):
        pass


def test_leaving_without_a_word_ends_it_and_its_children(tmp_path: Path) -> None:
    with server(tmp_path, "if not os.fork():\n    signal.pause()") as running:
        family = family_of(running.pid)
        assert len(family) == 2
        lives = [os.pidfd_open(pid) for pid in family]
    for pidfd in lives:  # readable when its process has ended (pidfd_open(2))
        ended, _, _ = select.select([pidfd], [], [], END_S)
        os.close(pidfd)
        assert ended, "it was killed, and lives"


def test_a_program_that_is_not_installed_is_told_with_what_installs_it() -> None:
    with pytest.raises(CannotRunError, match="no-such-program is not installed: apt-get install x"):
        program("no-such-program", "apt-get install x")
