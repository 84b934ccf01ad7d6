"""One run of the canonical upload with one thing wrong, or nothing: what has to hold then.

The daemon is the product's, on the simulation's ring, disk, network and clock. First the client
tries while things go wrong. Then power is cut, but only for a copy of the disk; the daemon itself,
well again, ends by itself and shows what it has not given back. The next one begins on the copy:
there the client finds what it was promised, and gets its file published.
"""

from __future__ import annotations

import contextlib
import sqlite3
import warnings
from collections import Counter
from typing import TYPE_CHECKING

import trio

from tests.nth.client import OTHER_NAME, Client
from tests.nth.errors import Told
from tests.nth.wrongdoing import Wrongdoer, watching
from tests.simulation.rests import CATALOG, LIVENESS_S, clean_up
from tests.simulation.world import World
from uringd.small.memory import BYTES_MAX
from uringd.wire import ErrorCode
from uringio.lowlevel import Opcode
from uringio.testing import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nth.wrongdoing import Injection
    from tests.simulation.life import Life
    from uringd.server import Server

SEED = 2
"""One in whose network the first connections carry everything at once: few receives."""

TRIES = 3
"""While things go wrong. What lasts has been told by then, and what happens once has passed."""

TRIES_AFTER = 4
"""When nothing does: one that finds the upload gone, one that takes it up, two to spare."""


class Trial(World):
    """A run. From the client's first operation to the end of trouble:

    `counts` has the operations by kind, `seen` what else the daemon called of the system.
    """

    def __init__(self, directory: Path, injection: Injection | None = None) -> None:
        super().__init__(SEED, directory)
        self.injection = injection
        self.counts: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.wrongdoer = Wrongdoer(injection)
        self._calm_plan()

    def _calm_plan(self) -> None:
        """Leave nothing to chance but the order of completions."""
        plan = self.plan
        plan.direct, plan.slot_bytes, plan.slots, plan.credit = True, 8192, 4, 2
        plan.checkpoint_s, plan.completion_entries, plan.late = 5.0, 512, 0.0
        plan.delay_s = plan.damage = plan.thread_s = plan.catalog_fails = 0.0
        plan.disturbances, plan.faults = [], []
        chosen = self.injection
        if chosen is not None and chosen.kind.startswith("ring "):
            opcode, wrong = Opcode[chosen.kind.removeprefix("ring ")], chosen.wrong
            fault = Fault(
                opcode, chosen.nth, result=-wrong.number, short=wrong.short, every=chosen.lasting
            )
            plan.faults = [fault]

    @property
    def may_fail(self) -> bool:
        """Whether something has gone wrong on purpose."""
        return super().may_fail or self.wrongdoer.hits > 0

    @property
    def again(self) -> str:
        """What shows it again."""
        return f"with {self.injection}"

    def run(self) -> None:
        """Run it. Raises BrokenPromiseError."""
        with self.wrongdoer.installed(), warnings.catch_warnings():
            if self.injection is not None and self.injection.wrong.ends:
                warnings.simplefilter("ignore", ResourceWarning)  # of memory that is leaked then
            super().run()

    async def _story(self) -> None:
        with trio.move_on_after(LIVENESS_S) as patience:
            await self._upload_and_judge()
        if patience.cancelled_caught:
            self.broken("somebody waits for ever")

    async def _upload_and_judge(self) -> None:
        client = Client(self)
        await self._serving()
        self.wrongdoer.armed = True
        with watching() as self.seen:
            await client.run(TRIES)
        life = await self._serving()  # another one, where the first had to end
        self._heal_all(life)
        self._judge(client)
        told = len(client.told)
        await self._restart_after_a_power_cut(life)
        await client.run(TRIES_AFTER)
        if not client.published:
            self.broken(f"it is not published when nothing is wrong: {client.told[told:]}")
        if set(client.told[told:]) - {ErrorCode.NOT_FOUND}:
            self.broken(f"{client.told[told:]} was said when nothing was wrong")
        await clean_up(self)
        await self._end_well()

    async def _serving(self) -> Life:
        assert self.life is not None
        while not self.life.listens:  # noqa: ASYNC110  # the simulated clock
            await trio.sleep(0.01)
        return self.life

    def _heal_all(self, life: Life) -> None:
        self.wrongdoer.armed = False
        counts = {f"ring {Opcode(code).name}": n for code, n in life.ring._counts.items()}
        self.counts = Counter(counts) + self.wrongdoer.counts
        self._heal()

    def _judge(self, client: Client) -> None:
        """Hold what the client was told against what has gone wrong."""
        chosen = self.injection
        if chosen is None:
            if client.told or not client.published:
                self.broken(f"nothing was wrong, and {client.told} was said")
            return
        if not self.may_fail:
            self.broken("it has not gone wrong")
        told, wrong = set(client.told), chosen.wrong
        right = {ErrorCode.NOT_FOUND}  # where that is not true, the oracle says so
        if wrong.told is not Told.NEVER:
            right |= {wrong.code, *wrong.also}
        if told - right:
            self.broken(f"{client.told} was said")
        if wrong.told is Told.ALWAYS and wrong.code not in told:
            self.broken("nobody was told")
        if not client.published and not chosen.lasting and not wrong.ends:
            self.broken(f"once was enough to keep the file from being published: {client.told}")

    async def _restart_after_a_power_cut(self, life: Life) -> None:
        """End a life that has to give everything back, and begin the next on what was durable."""
        after = life.disk.power_cut(self.new_directory())
        self.oracle.lost_power()
        self.oracle.look(after.directory / "root")
        self._closing = True
        life.leave()
        await life.over.wait()
        private = life.disk.directory / "root" / ".uringd"
        self._check_rests(private)
        if (private.parent / OTHER_NAME).exists():
            self.broken("what was aborted is published")
        self._closing = False
        self._live(after)
        await self._serving()

    def left(self, server: Server) -> None:
        """Look at a server that has come to its end by itself: nobody holds anything."""
        super().left(server)
        registry = server.registry
        for what, held in (
            ("locks of uploads", registry._changing._held),
            ("names", server.root.naming._held),
            ("bytes of small uploads", BYTES_MAX - server.small.memory.free_bytes),
            ("checkpoints", server._checkpoints),
            ("receivers", server.receiving),
        ):
            if held:
                self.broken(f"{what} are held at the end: {held}")

    def _check_rests(self, private: Path) -> None:
        """What a server leaves agrees: a spool file for each record, and the other way round."""
        with contextlib.closing(sqlite3.connect(private / CATALOG[0])) as db:
            rows = {upload_id for (upload_id,) in db.execute("SELECT upload_id FROM uploads")}
            begun = {upload_id for (upload_id,) in db.execute("SELECT upload_id FROM commits")}
        spooled = {path.name.removesuffix(".part") for path in (private / "spool").iterdir()}
        chosen = self.injection
        if chosen is not None and chosen.kind.startswith("catalog "):
            return  # the next start brings them to agree, and that is looked at
        if spooled != rows or begun - rows:
            self.broken(f"the spool has {spooled}, the catalog {rows}, at work {begun}")
