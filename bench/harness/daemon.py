"""A uringd of our own, and the uploads to it: started, asked, measured, ended."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from bench.harness.measurement import CannotRunError
from bench.harness.meter import family_cpu_s, family_peak_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

Transport = Literal["tcp", "unix"]

READY_TIMEOUT_S = 30.0
"""From start to the last `listening` line: a cold start of Python takes one or two seconds."""
STOP_TIMEOUT_S = 60.0
"""From SIGTERM to the end: uringd leaves uploads 30 s, and there are none by then."""

PYTHON = [sys.executable, "-I" if sys.flags.isolated else "-P"]
"""How our Python children start: as we were, never with a module from the working directory."""


class Daemon:
    """`uringd serve` on `root`, from entering to leaving. `urls` has one URL for each transport.

    `options` are more words for its command line, `config` the text of its configuration file.
    The Unix socket lies in a temporary directory of its own, because its path may have 107 bytes
    at the most. The daemon has a session of its own: Ctrl-C is for whoever started it to handle.
    """

    def __init__(
        self,
        root: Path,
        transports: Sequence[Transport],
        options: Sequence[str] = (),
        *,
        config: str = "",
    ) -> None:
        self._root = root
        self._options = options
        self._transports = transports
        self._config = config
        self._scratch = tempfile.TemporaryDirectory(prefix="uringd-", ignore_cleanup_errors=True)
        self._log = Path(self._scratch.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it listens. Raises CannotRunError with its own last words."""
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """End it, at once if `stop` was not called."""
        self._kill()

    def stop(self) -> int:
        """End it by SIGTERM; the result is its exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as exc:
            raise CannotRunError(
                f"uringd did not end {STOP_TIMEOUT_S:.0f} s after SIGTERM"
            ) from exc

    def cpu_s(self) -> tuple[float, float]:
        """User and system CPU seconds so far, of all its workers, with io-wq's threads."""
        assert self._process is not None
        return family_cpu_s(self._process.pid)

    def peak_rss_bytes(self) -> int | None:
        """Its peak resident memory so far, all workers together."""
        assert self._process is not None
        return family_peak_bytes(self._process.pid)

    def rss_bytes(self) -> int:
        """Its resident memory now, without workers'."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _start(self) -> None:
        if importlib.util.find_spec("uringd") is None:
            raise CannotRunError("uringd is not installed in this environment: make demo does it")
        socket = Path(self._scratch.name) / "s"
        urls = {"tcp": "tcp://127.0.0.1:0", "unix": f"unix://{socket}"}
        command = [*PYTHON, "-m", "uringd", "serve", "--root", str(self._root)]
        command += self._options
        for transport in self._transports:
            command += ["--listen", urls[transport]]
        if self._config:
            config = Path(self._scratch.name) / "config.toml"
            config.write_text(self._config)
            command += ["--config", str(config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._process.stdout is not None
        self._wait_ready(self._process.stdout.fileno())

    def _wait_ready(self, fd: int) -> None:
        said = b""
        deadline = time.monotonic() + READY_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while len(self.urls) < len(self._transports):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise CannotRunError(f"uringd was not ready after {READY_TIMEOUT_S:.0f} s")
                piece = os.read(fd, 4096)
                if not piece:
                    raise CannotRunError(f"uringd did not start: {last_line(self._log)}")
                said += piece
                self.urls = dict(_listening(said.decode(errors="replace")))

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        with contextlib.suppress(OSError):
            self._scratch.cleanup()


def _listening(said: str) -> list[tuple[str, str]]:
    """Find the URLs in what `serve` has said so far: whole lines only."""
    urls = [
        line.removeprefix("listening ").strip()
        for line in said.splitlines(keepends=True)
        if line.startswith("listening ") and line.endswith("\n")
    ]
    return [(url.partition(":")[0], url) for url in urls]


def put_command(source: Path | Literal["-"], url: str, name: str) -> list[str]:
    """Build `uringd put`, with the receipt as JSON; the progress bar is the caller's choice."""
    command = [*PYTHON, "-m", "uringd", "put", str(source), url]
    return [*command, "--name", name, "--json"]


def read_receipt(stdout: str) -> dict[str, Any]:
    """Read the receipt: one JSON object on the last line of stdout."""
    try:
        receipt = json.loads(stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as exc:
        raise CannotRunError("uringd put printed no receipt") from exc
    if not isinstance(receipt, dict):
        raise CannotRunError("uringd put printed no receipt")
    return receipt


def last_line(log: Path) -> str:
    """Take the last line of a program's log, for an error of one sentence."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
