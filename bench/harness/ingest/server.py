"""A server of others: started, waited for, measured with all its processes, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, ClassVar, Self

from bench.harness.daemon import last_line
from bench.harness.measurement import CannotRunError
from bench.harness.meter import family_cpu_s, family_of, family_peak_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOST = "127.0.0.1"
READY_TIMEOUT_S = 30.0
"""From start to the first connection that is taken: a cold start of Python takes a few seconds."""
STOP_TIMEOUT_S = 20.0
"""From SIGTERM to the end; nothing is under way by then."""
POLL_S = 0.02


class Server:
    """A program that listens on `port` of the loopback, in the foreground, in a session of its own.

    Its stdout and stderr go to the file `log`; what it needs of its environment comes on top of
    ours. It is asked to end by SIGTERM to its pid, and its children are left to it; when it does
    not end in time, it and they are killed.
    """

    ended_by_sigterm: ClassVar[tuple[int, ...]] = (0, -15, 143)
    """Some leave with 0, some by the signal that they were sent, some say so with 128 + 15."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it takes a connection. Raises CannotRunError."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """End it, at once if `stop` was not called."""
        self._kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> tuple[float, float]:
        """User and system CPU seconds so far, of all its processes."""
        return family_cpu_s(self.pid)

    def peak_rss_bytes(self) -> int | None:
        """Peak resident memory so far, of all its processes together."""
        return family_peak_bytes(self.pid)

    def stop(self) -> int:
        """End it by SIGTERM; the result is 0 when it went as it was asked to."""
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as exc:
            raise CannotRunError(f"did not end {STOP_TIMEOUT_S:.0f} s after SIGTERM") from exc
        return 0 if code in self.ended_by_sigterm else code

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise CannotRunError(f"did not start: {last_line(self._log)}")
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0):
                return
            time.sleep(POLL_S)
        raise CannotRunError(f"did not listen after {READY_TIMEOUT_S:.0f} s")

    def _kill(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        for pid in reversed(family_of(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str, install: str) -> str:
    """Find a program. Raises CannotRunError with the command that installs it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise CannotRunError(f"{name} is not installed: {install}")
    return found
