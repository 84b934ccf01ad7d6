"""A worker's process, as its supervisor has it.

It is a fresh Python, not a fork: a child of fork(2) would have the threads' locks without the
threads. Its standard input is its lifeline: the other end is the supervisor's alone, and ends with
it. It has a session of its own, so that Ctrl-C on a terminal, or the terminal's
end, reaches the supervisor only, which tells the workers what it means.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import trio

from uringd.workers.orders import READY, Orders

COMMAND = [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "uringd.workers"]

READY_TIMEOUT_S = 60.0
"""From start to readiness: a cold start of Python, and a pool of memory to be registered."""

SAID_BYTES_MAX = 4096
"""One line: that it is ready, or why it is not."""


class WorkerError(Exception):
    """A worker does not start, or does not stay; the text says why and what mends it."""


class WorkerProcess:
    """One process from start to end."""

    def __init__(self, process: trio.Process, orders: Orders) -> None:
        self._process = process
        self.row = orders.row
        self.number = orders.worker
        self.started = trio.current_time()

    @classmethod
    async def start(cls, orders: Orders) -> WorkerProcess:
        """Start it and wait until it serves. Raises WorkerError; then there is no process."""
        process = await trio.lowlevel.open_process(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=orders.fds,
            start_new_session=True,
        )
        worker = cls(process, orders)
        try:
            await worker._wait_ready(orders)
            worker.started = trio.current_time()  # to start takes time, and is no life
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        """Its process id, which is also its name on the bus."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.returncode is not None

    async def _wait_ready(self, orders: Orders) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = b""
        with trio.move_on_after(READY_TIMEOUT_S) as patience:
            with contextlib.suppress(trio.BrokenResourceError):  # its end is seen below
                await self._process.stdin.send_all(orders.encode())
            while not said.endswith(b"\n"):
                piece = await self._process.stdout.receive_some(SAID_BYTES_MAX)
                if not piece:
                    break
                said += piece
        if said == READY:
            return
        if patience.cancelled_caught:
            raise WorkerError(f"worker {self.number} is not ready after {READY_TIMEOUT_S:.0f} s")
        if said:
            raise WorkerError(said.decode(errors="replace").strip())
        code = await self._process.wait()
        raise WorkerError(f"worker {self.number} did not start: it {_cause(code)}; see its log")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if not self.ended:
            self._process.send_signal(number)

    async def wait(self) -> str:
        """Wait for its end; the result says how it came."""
        return _cause(await self._process.wait())

    async def kill(self) -> None:
        """End it at once, also when cancelled."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
