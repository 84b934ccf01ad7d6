"""One worker's place: the process that fills it, and the one that is leaving it.

A place has two rows of the accounts, one for each of the two. A process that has ended has its row
settled and its name taken from the bus, whatever its end was.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from uringd.workers.bus import remove
from uringd.workers.crashes import Crashes
from uringd.workers.process import WorkerError, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from uringd.accounts import Accounts
    from uringd.config import Settings
    from uringd.workers.orders import Orders

log = structlog.get_logger("uringd.workers")

LEAVE_GRACE_S = 30.0
"""What a worker may take beyond `shutdown_timeout_s`, to make durable what was unfinished; then it
is killed."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where places are kept filled, and who is told of a death and of a place that is given up."""

    nursery: trio.Nursery
    died: Callable[[], None]
    give_up: Callable[[str], None]


class Place:
    """Keeps one worker there. `number` is what the log calls it, from 1."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        accounts: Accounts,
        bus_fd: int,
        orders: Callable[[int, int], Orders],
    ) -> None:
        self.number = number
        self._patience_s = settings.shutdown_timeout_s + LEAVE_GRACE_S
        self._accounts = accounts
        self._bus_fd = bus_fd
        self._orders = orders
        self._crashes = Crashes()
        self._rows = (2 * number - 1, 2 * number)
        self._process: WorkerProcess | None = None
        self._leaving: WorkerProcess | None = None
        self._changing = trio.Lock()
        self._ending = False

    async def fill(self) -> None:
        """Start a worker, and wait until it serves. Raises WorkerError."""
        used = {process.row for process in self._there()}
        row = next(row for row in self._rows if row not in used)
        self._accounts.bury(row)
        process = await WorkerProcess.start(self._orders(self.number, row))
        log.info("worker started", worker=self.number, pid=process.pid)
        self._process = process
        if self._ending:
            process.signal(signal.SIGTERM)

    async def keep(self, keeping: Keeping) -> None:
        """Start a new worker whenever the one that is there dies; until it is replaced."""
        process = self._process
        assert process is not None
        cause = await process.wait()
        async with self._changing:
            if self._ending or process is not self._process:
                return
            self._bury(process)
            keeping.died()
            try:
                await self._fill_again(process, cause)
            except WorkerError as exc:
                keeping.give_up(str(exc))
                return
        keeping.nursery.start_soon(self.keep, keeping)

    async def _fill_again(self, process: WorkerProcess, cause: str) -> None:
        lived_s = trio.current_time() - process.started
        while not self._ending:
            wait_s = self._crashes.died(lived_s)
            log.warning(
                "worker died",
                worker=self.number,
                pid=process.pid,
                cause=cause,
                lived_s=round(lived_s, 3),
                again_in_s=wait_s,
            )
            if wait_s is None:
                text = f"worker {self.number} dies again and again, the last one {cause}"
                raise WorkerError(f"{text}: see the log; the uploads it had can be resumed")
            await trio.sleep(wait_s)
            try:
                await self.fill()
            except WorkerError as exc:
                cause, lived_s = f"did not start ({exc})", 0.0
            else:
                return

    async def replace(self, keeping: Keeping) -> None:
        """Put a new worker into the place, then let the old one leave. Raises WorkerError."""
        async with self._changing:
            if self._ending:
                return
            old = self._process
            assert old is not None
            await self.fill()
            self._leaving = old
        keeping.nursery.start_soon(self.keep, keeping)
        log.info("worker replaced", worker=self.number, pid=old.pid)
        old.signal(signal.SIGHUP)
        await self._see_off(old)
        self._leaving = None

    def begin_end(self) -> None:
        """Tell whoever is there to end, gracefully."""
        self._ending = True
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to whoever is there."""
        for process in self._there():
            process.signal(number)

    async def wait_ended(self) -> None:
        """Wait until nobody is there, with patience, then without."""
        async with self._changing:  # who is being started as well
            for process in self._there():
                await self._see_off(process)

    async def kill(self) -> None:
        """Leave nobody."""
        for process in self._there():
            await process.kill()

    def _there(self) -> list[WorkerProcess]:
        both = (self._process, self._leaving)
        return [process for process in both if process is not None and not process.ended]

    async def _see_off(self, process: WorkerProcess) -> None:
        with trio.move_on_after(self._patience_s) as patience:
            await process.wait()
        if patience.cancelled_caught:
            log.error("worker does not leave", worker=self.number, pid=process.pid)
            await process.kill()
        self._bury(process)

    def _bury(self, process: WorkerProcess) -> None:
        self._accounts.bury(process.row)
        remove(self._bus_fd, str(process.pid))
