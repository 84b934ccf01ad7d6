"""One life of the daemon: the product's server on a simulated ring and disk, until it ends.

It ends by itself, or it is killed, or power is lost. A process that ends so does nothing more; here
its tasks cannot be taken away, so its directory is: what a kill leaves is copied to another one at
that moment, the network is cut, and what the tasks still do on their way out nobody ever sees.
"""

from __future__ import annotations

import contextvars
import fcntl
import os
import random
from typing import TYPE_CHECKING

import trio

from tests.simulation.rests import descriptors
from uringd.catalog import CatalogError
from uringd.config import Settings
from uringd.root import SPOOL_SUFFIX
from uringd.server import Server, open_server
from uringio.exceptions import BrokenError
from uringio.lowlevel import Opcode, Operation, operations
from uringio.testing import SimulatedRing
from uringio.testing.faults import PLAIN

if TYPE_CHECKING:
    from tests.simulation.world import World
    from uringio.testing import SimulatedDisk

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("LIFE", default=None)
"""Whose task this is."""

LATE_WRITE_S = 3.0
"""How long after a kill a write may still reach the disk (measured on a slow one: 2.6 s)."""

RELEASE_S = 20.0
"""A device that holds operations back answers in that time."""

ENDS = {Opcode.OPENAT, Opcode.OPENAT2, Opcode.CLOSE}
"""What a killed process has begun and is not done for it: it would only move descriptors."""


class Life:
    """A server from its start to its end. `disk` is what it finds."""

    def __init__(self, world: World, disk: SimulatedDisk, number: int) -> None:
        plan = world.plan
        self._world = world
        self._random = random.Random(f"{world.seed}/life/{number}")
        self.disk = disk
        self.ring = SimulatedRing(
            self._random.getrandbits(32),
            faults=plan.faults if world.trouble else (),
            completion_entries=plan.completion_entries,
            late=plan.late if world.trouble else 0.0,
            disk=disk,
            perform=self._perform,
        )
        self.server: Server | None = None
        self.dead = False
        self.over = trio.Event()
        self._leave = trio.Event()
        self._scope = trio.CancelScope()
        self._connections: trio.Nursery | None = None

    @property
    def listens(self) -> bool:
        """Whether clients can connect."""
        return self._connections is not None and not self.dead

    def accept(self, stream: trio.SocketStream) -> None:
        """Serve a connection."""
        assert self._connections is not None
        assert self.server is not None
        serve = self.server.serve_connection
        self._context.run(self._connections.start_soon, serve, "unix", stream)

    async def run(self) -> None:
        """Serve until the end."""
        LIFE.set(self)
        self._context = contextvars.copy_context()
        try:
            with self._scope:
                await self._serve()
        except* CatalogError as group:
            if not self.dead and not self._world.may_fail:
                self._world.broken(f"the server does not start: {group.exceptions}")
        except* BrokenError as group:
            if not self.dead and not self._world.may_fail:
                self._world.broken(f"the server does not go on: {group.exceptions}")
            self._close_all()
        finally:
            if self.dead:
                self._close_all()
            self._connections = None
            self.over.set()
            self._world.count_ring(self.ring)

    def _close_all(self) -> None:
        """Close what is open, as the end of a process does.

        Whose ring broke keeps its ring and its files: the kernel may not have let go of them. And
        who was killed may end in the midst of a commit here, with its catalog closed before it.
        """
        self.ring.close()
        below = f"{self.disk.directory}/"
        for fd, path in descriptors().items():
            if path.startswith(below) and int(fd) not in self._world.late_writers:
                os.close(int(fd))

    async def _serve(self) -> None:
        plan = self._world.plan
        settings = Settings(
            root=self.disk.directory / "root",
            listen=(),
            slots=plan.slots,
            slot_bytes=plan.slot_bytes,
            credit_per_connection=plan.credit,
            checkpoint_bytes=1 << 16,
            checkpoint_s=plan.checkpoint_s,
            shutdown_timeout_s=2.0,
        )
        async with (
            open_server(settings, self.ring) as server,
            trio.open_nursery() as nursery,
        ):
            self.server, self._connections = server, nursery
            nursery.start_soon(self._release_now_and_then)
            await self._leave.wait()
            self._connections = None
            await server.shut_down()
            if not self.dead:
                self._world.left(server)
            nursery.cancel_scope.cancel()

    def leave(self) -> None:
        """Ask it to end, as SIGTERM does."""
        self._leave.set()

    def end(self, *, power: bool) -> SimulatedDisk:
        """Kill it, or cut the power; the result is what the next life finds."""
        late = self._finish_some(power=power)
        directory = self._world.new_directory()
        after = self.disk.power_cut(directory) if power else self.disk.kill(directory)
        self.dead = True
        self.ring.heal()
        if self.server is None:
            self._scope.cancel()
        else:
            self.server.end_now()
            self._leave.set()
        for number, writes in late.items():
            self._world.nursery.start_soon(self._write_late, after, number, writes)
        return after

    def _finish_some(self, *, power: bool) -> dict[int, list[Operation]]:
        """Do some of what was begun; the result is what is written later, by the files' numbers."""
        late: dict[int, list[Operation]] = {}
        for chain in self.ring.begun():
            done = self._random.randint(0, len(chain))
            for operation in chain[:done]:
                if operation.opcode in ENDS or self.disk.perform(operation) < 0:
                    break
                self._take_note_of_an_end(operation)
            first = chain[0]
            if not power and not done and PLAIN.get(first.opcode, first.opcode) is Opcode.WRITE:
                late.setdefault(self.disk.inode(first.fd), []).append(_copied(first))
        return late

    async def _write_late(self, disk: SimulatedDisk, number: int, writes: list[Operation]) -> None:
        """Write what a killed process had begun in a file, under its lock."""
        path = disk._tree.look().get(number)
        if path is None:
            return
        fd = os.open(path, os.O_RDWR)
        self._world.late_writers.add(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for write in writes:
                await trio.sleep(self._random.uniform(0, LATE_WRITE_S))
                write.fd = fd
                disk.perform(write)
                self._world.tally.counts["writes after a kill"] += 1
        finally:
            self._world.late_writers.remove(fd)
            os.close(fd)

    async def _release_now_and_then(self) -> None:
        while True:
            await trio.sleep(self._random.uniform(0.1, RELEASE_S))
            self.ring.release()

    def _perform(self, operation: Operation) -> int:
        """Do an operation of the ring: before each, and after, everything may end."""
        world = self._world
        if self.dead:
            return self.disk.perform(operation)
        world.step(self)
        result = self.disk.perform(operation)
        self._take_note_of_an_end(operation)
        said = min(result, 0) if operation.opcode in ENDS else result  # a descriptor is any number
        world.note(operation.opcode.name, operation.offset, operation.length, said)
        if not self.dead:
            world.step(self)
        return result

    def _take_note_of_an_end(self, done: Operation) -> None:
        """Take the removal of an upload that failed for its end: it will say so, if it lives."""
        if done.opcode is Opcode.UNLINKAT and self._world.may_fail:
            upload_id = os.fsdecode(done.path).removesuffix(SPOOL_SUFFIX)
            self._world.oracle.ended.setdefault(upload_id, "failed")


def _copied(operation: Operation) -> Operation:
    assert operation.data is not None
    data = bytes(memoryview(operation.data).cast("B")[: operation.length])
    return operations.write(
        operation.fd, data, operation.offset, operation.length, flags=operation.flags
    )
