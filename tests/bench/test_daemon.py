"""daemon.py: what is read from uringd, and what becomes of one that does not start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench.harness import daemon
from bench.harness.daemon import Daemon, last_line, put_command, read_receipt
from bench.harness.measurement import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    InItsPlace = Callable[[str], Daemon]


def test_the_receipt_is_the_last_line() -> None:
    assert read_receipt('progress\n{"size": 7}\n') == {"size": 7}


@pytest.mark.parametrize("said", ["", "\n", "done", "[1]", '{"size": 7}\nbye'])
def test_without_a_receipt_there_is_an_error(said: str) -> None:
    with pytest.raises(CannotRunError, match="no receipt"):
        read_receipt(said)


def test_put_is_asked_for_a_receipt_in_json() -> None:
    command = put_command("-", "tcp://127.0.0.1:1", "a.tar")
    assert command[-6:] == ["put", "-", "tcp://127.0.0.1:1", "--name", "a.tar", "--json"]


def test_the_last_words_of_a_program(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("starting\nno such disk\n\n")
    assert last_line(log) == "no such disk"
    log.write_text("")
    assert last_line(log) == "it said nothing"


@pytest.fixture
def in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InItsPlace:
    """Start a program of our own in uringd's place: all its arguments are ignored."""

    def replace(code: str) -> Daemon:
        program = tmp_path / "program.py"
        program.write_text(code)
        monkeypatch.setattr(daemon, "PYTHON", [sys.executable, "-IS", str(program)])
        return Daemon(tmp_path / "root", ["tcp", "unix"])

    return replace


READY = "print('listening tcp://127.0.0.1:1\\nlistening unix:///s', flush=True)\n"
WAIT = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit({}))\n{}signal.pause()\n"


def test_it_is_ready_when_every_url_was_said_and_its_exit_code_is_told(
    in_its_place: InItsPlace,
) -> None:
    with in_its_place(WAIT.format(3, READY)) as running:
        assert running.urls == {"tcp": "tcp://127.0.0.1:1", "unix": "unix:///s"}
        assert running.peak_rss_bytes()
        assert running.cpu_s() >= (0, 0)
        assert running.stop() == 3


def test_one_that_does_not_start_is_an_error_with_its_last_words(in_its_place: InItsPlace) -> None:
    with (
        pytest.raises(CannotRunError, match="did not start: no such disk"),
        in_its_place("import sys\nsys.exit('no such disk')"),
    ):
        pass


def test_one_that_says_nothing_is_ended(
    in_its_place: InItsPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "READY_TIMEOUT_S", 0.0)
    with pytest.raises(CannotRunError, match="not ready"), in_its_place(WAIT.format(0, "")):
        pass
