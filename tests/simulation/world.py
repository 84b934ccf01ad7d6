"""One run: a daemon, its disk, its network and its clients, all of one seed.

First everything goes wrong that the seed has (safety: no promise is broken meanwhile), then nothing
does any more, and every client has to come to its end (liveness). Last, nothing may be left: no
slot, descriptor, spool file or record, and every published file is whole.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import traceback
from typing import TYPE_CHECKING, Any

import trio

from tests.simulation.clockwork import run_seeded
from tests.simulation.life import LIFE, Life
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle
from tests.simulation.plan import KILLS, Limits, Plan
from tests.simulation.product import ProductClient
from tests.simulation.rests import (
    CATALOG,
    LIVENESS_S,
    clean_up,
    descriptors,
    look_for_rests,
    not_removed,
)
from tests.simulation.tally import Tally
from tests.simulation.uploader import Uploader
from uringd.catalog import Catalog
from uringd.wire import ErrorCode
from uringio.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from pathlib import Path

    from tests.simulation.lane import Refused
    from uringd.server import Server
    from uringio.testing import SimulatedRing

STEPS_MAX = 120
"""Steps to the next kill at the most: an upload of a few chunks takes about as many."""

FOREIGN = {ErrorCode.INTERNAL, ErrorCode.CREDIT_EXCEEDED, ErrorCode.OUT_OF_ORDER}
"""Ends of a session that no client here deserves."""

EVENTS_KEPT = 40
"""Of what happened last, for who looks for the reason."""


class BrokenPromiseError(Exception):
    """A promise was broken: the text says which, how to see it `again`, and what came before."""

    def __init__(self, what: str, again: str, events: list[str]) -> None:
        last = "\n  ".join(events)
        super().__init__(f"{what}\nagain: {again}\nlast:\n  {last}")
        self.again = again


class World:
    """Everything of one run. `directory` is empty, and on a file system in memory best."""

    def __init__(self, seed: int, directory: Path, limits: Limits | None = None) -> None:
        self.seed = seed
        self.limits = limits or Limits()
        self.plan = Plan(seed, self.limits)
        self.tally = Tally(seeds=1)
        self.oracle = Oracle(self.broken)
        self.network = Network(self)
        self.trouble = True
        self.late_writers: set[int] = set()  # descriptors of processes that were killed
        self.life: Life | None = None
        self.violation = ""
        self.nursery: trio.Nursery
        self._random = random.Random(f"{seed}/world")
        self._directory = directory
        self._directories = 0
        self._trace = hashlib.sha256()
        self._events: list[str] = []
        self._steps = 0
        self._end_at = 0
        self._end_by_power = False
        self._ended = trio.Event()
        self._over = trio.CancelScope()
        self._failed_on_purpose = False
        self._closing = False
        self._lives = 0
        self._disks: list[SimulatedDisk] = []
        self._rings: list[SimulatedRing] = []

    @property
    def trace(self) -> str:
        """What happened, as one number: the same for the same seed."""
        return self._trace.hexdigest()

    @property
    def again(self) -> str:
        """What shows it again."""
        return f"make simulate SEED={self.seed} {self.limits.arguments()}".strip()

    @property
    def may_fail(self) -> bool:
        """Whether an operation, or a record, has failed on purpose."""
        return self._failed_on_purpose or any(ring.faults_hit for ring in self._rings)

    def run(self) -> None:
        """Run it. Raises BrokenPromiseError."""
        before = descriptors()
        failure: Exception | None = None
        try:
            run_seeded(self, self._main)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it has a seed
            failure, self.violation = exc, f"the program has failed: {exc!r}"
        left = {fd: what for fd, what in descriptors().items() if fd not in before}
        if left and not self.violation:
            self.violation = f"descriptors are open at the end: {left}"
        if self.violation:
            last = self._events[-EVENTS_KEPT:]
            raise BrokenPromiseError(self.violation, self.again, last) from failure

    # What others tell.

    def broken(self, text: str) -> None:
        """Hear of a broken promise: the first one ends the run."""
        if not self.violation:
            self.violation = text
            self.note("BROKEN", text)
        self._heal()
        for ring in self._rings:  # what is held back would be waited for without end
            ring.heal()
        self._over.cancel()

    def stuck(self) -> None:
        """Hear that tasks run and no time passes."""
        self.broken("tasks run for ever, and nothing comes of it")

    def note(self, *what: object) -> None:
        """Take note of an event, for the trace."""
        line = f"{trio.current_time():.6f} {' '.join(map(str, what))}"
        self._trace.update(line.encode())
        self._remember(line)

    def _remember(self, line: str) -> None:
        self._events.append(line)
        if len(self._events) > 2 * EVENTS_KEPT:
            del self._events[:EVENTS_KEPT]

    def logged(self, level: str, event: MutableMapping[str, Any]) -> None:
        """Hear what the server logs."""
        life = LIFE.get()
        if life is None or life.dead:
            return
        self.note("log", event.get("event"), event.get("outcome", ""))
        self._remember(f"    {event}")
        if level in {"error", "critical", "exception"}:
            self.broken(f"the server has failed: {event}")
        if event.get("event") == "upload" and event["outcome"] in {"failed", "aborted"}:
            self.oracle.ended[event["upload_id"]] = event["outcome"]

    def session_ended(self, refused: Refused) -> None:
        """Hear that a server ended a session."""
        if refused.code in FOREIGN and not self.plan.damage:
            self.broken(f"a session was ended with {refused.code.name}: {refused.text}")

    def left(self, server: Server) -> None:
        """Look at a server that has come to its end by itself: nobody holds anything."""
        registry, statistics = server.registry, server.ring.statistics()
        if statistics.free_slots != statistics.slots:
            self.broken(f"{statistics.free_slots} of {statistics.slots} slots are free at the end")
        if registry.open or server.sessions:
            self.broken(f"{registry.open} and {server.sessions} are left at the end")

    def count_ring(self, ring: SimulatedRing) -> None:
        """Count what a ring has done."""
        self.tally.operations += len(ring.history)
        for fault, count in ring.faults_hit.items():
            what = "short" if fault.short else os.strerror(-fault.result)
            self.tally.counts[f"fault: {fault.opcode.name.lower()} {what}"] += count

    # What stands in the place of the machine.

    def step(self, life: Life | None) -> None:
        """Count a step of the daemon: at one of them it ends."""
        if life is None or life is not self.life:
            return
        self._steps += 1
        if self._steps != self._end_at:
            return
        try:
            self._end(life)
        except Exception:  # noqa: BLE001  # here it would end the ring, and be lost
            self.broken(f"the simulation has failed: {traceback.format_exc()}")

    def passed(self) -> None:
        """Count bytes that passed the network as a step."""
        self.step(self.life)

    def fsync(self, fd: int) -> None:
        """Do os.fsync."""
        self._disk_of(fd).fsync(fd)

    def inode(self, fd: int) -> int:
        """Tell a file's inode number."""
        return self._disk_of(fd).inode(fd)

    async def in_thread(
        self, work: Callable[..., Any], args: tuple[Any, ...], limiter: trio.CapacityLimiter | None
    ) -> Any:
        """Do a thread's work in its place: it takes its time, and cannot be cancelled."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if limiter is not None:
            await limiter.acquire()
        try:
            with trio.CancelScope(shield=True):
                await self._pass_time()
                self.step(LIFE.get())
                result = self._fail(work, args) or work(*args)
                self.note("thread", getattr(work, "__name__", ""))
                self.step(LIFE.get())
                await self._pass_time()
                return result
        finally:
            if limiter is not None:
                limiter.release()

    async def _pass_time(self) -> None:
        if self.plan.thread_s and self.trouble:
            await trio.sleep(self._random.uniform(0, self.plan.thread_s))
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _fail(self, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Fail a transaction of the catalog, now and then; nothing of it is kept."""
        if getattr(work, "__func__", None) is not Catalog._transact or not self.trouble:
            return None
        if self._random.random() >= self.plan.catalog_fails:
            return None
        self._failed_on_purpose = True
        self.tally.counts["fault: catalog"] += 1

        def refuse(_db: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        return work([refuse for _ in args[0]])

    def new_directory(self) -> Path:
        """Name a directory that nothing has used."""
        self._directories += 1
        return self._directory / str(self._directories)

    def _disk_of(self, fd: int) -> SimulatedDisk:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return next(d for d in self._disks if _below(path, str(d.directory)))

    # The run.

    async def _main(self) -> None:
        with self._over:
            async with trio.open_nursery() as self.nursery:
                disk = SimulatedDisk(self.new_directory(), self.seed, kept=CATALOG)
                (disk.directory / "root").mkdir()
                disk.syncfs()
                self._live(disk)
                await self._story()
                self.nursery.cancel_scope.cancel()

    async def _story(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._disturb)
            async with trio.open_nursery() as clients:
                for number in range(self.plan.clients):
                    kind = ProductClient if number == 0 and self.seed % 3 == 0 else Uploader
                    clients.start_soon(kind(self, number).run)
            self._heal()
            nursery.cancel_scope.cancel()
        await clean_up(self)
        await self._end_well()

    def _live(self, disk: SimulatedDisk) -> None:
        self._lives += 1
        self._disks.append(disk)
        self.life = Life(self, disk, self._lives)
        self._rings.append(self.life.ring)
        self.nursery.start_soon(self._survive, self.life)

    async def _survive(self, life: Life) -> None:
        """Run a life, and begin the next one when it is over."""
        await life.run()
        if life is self.life and not self._closing:
            await trio.sleep(self._random.uniform(0, 0.5))
            if life is self.life:  # it was not killed at its last step
                self._live(life.disk)

    def _end(self, life: Life) -> None:
        """End a life at this very step."""
        kind = "power" if self._end_by_power else "kill"
        self.note(kind)
        self.tally.counts[f"daemon: {'power cuts' if self._end_by_power else 'kills'}"] += 1
        disk = life.end(power=self._end_by_power)
        if self._end_by_power:
            self.oracle.lost_power()
        self.oracle.look(disk.directory / "root")
        self.network.cut_all()
        self._live(disk)
        self._ended.set()

    async def _disturb(self) -> None:
        """Do what the plan has, one after the other; then leave everything in peace."""
        for kind in self.plan.disturbances:
            await trio.sleep(self._random.uniform(0, 0.3))
            self.note("disturb", kind)
            if kind in KILLS:
                await self._end_soon(power=kind == "power")
            elif kind == "leave":
                self.tally.counts["daemon: restarts"] += 1
                if self.life is not None:
                    self.life.leave()
            elif kind == "cut":
                self.tally.counts["network: connections cut"] += 1
                self.network.cut_one()
            elif kind == "half open":
                self.tally.counts["network: connections half open"] += 1
                self.nursery.start_soon(self.network.half_open)
            else:
                await trio.sleep(self._random.uniform(0, 20))
        self._heal()
        with trio.move_on_after(LIVENESS_S):
            await trio.sleep_forever()
        self.broken(f"a client has not come to its end in {LIVENESS_S:.0f} s of peace")

    async def _end_soon(self, *, power: bool) -> None:
        self._ended = trio.Event()
        self._end_by_power = power
        self._end_at = self._steps + self._random.randint(1, STEPS_MAX)
        with trio.move_on_after(30):
            await self._ended.wait()
        self._end_at = 0

    def _heal(self) -> None:
        self.trouble = False
        self._end_at = 0
        self.network.heal()
        if self.life is not None and not self.life.over.is_set():
            self.life.ring.heal()

    async def _end_well(self) -> None:
        """Let the server end, and see that nothing is left, and everything is there."""
        life = self.life
        assert life is not None
        self._closing = True
        life.leave()
        with trio.move_on_after(LIVENESS_S) as patience:
            await life.over.wait()
        if patience.cancelled_caught:
            self.broken("the server does not end")
            return
        root = life.disk.directory / "root"
        look_for_rests(root / ".uringd", not_removed(life.ring), self.broken)
        self.oracle.look(root)
        after = life.disk.power_cut(self.new_directory())
        self.oracle.lost_power()
        self.oracle.look(after.directory / "root")


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
