"""What makes a run repeat itself: one seed for everything that chance or the machine decides.

trio's clock jumps when nobody can run, its scheduler is seeded, threads' work is done in place of
the thread, and what asks the system for randomness gets it from the seed. Only one simulation runs
in a process at a time: what it replaces is put back when it is over.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
from typing import TYPE_CHECKING, Any

import structlog
import trio
import trio.testing

import uringd.catalog_schema
import uringd.client.link
import uringd.reconcile
import uringd.uploads
from uringio._ring import libc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from tests.simulation.world import World

PASSES_MAX = 100_000
"""Scheduler passes of one run. The longest need 20,000: more is a loop in which no time passes."""

ROOM_BYTES = 64 << 10
"""What the catalog keeps free for itself. The simulated disk is never full below it, and each life
would write a megabyte; so its log is also checkpointed more often."""

DIRECT = libc.DirectAlignment(memory=512, offset=512)
BUFFERED = libc.DirectAlignment(memory=0, offset=0)


class StuckError(BaseException):
    """Tasks keep running and nothing comes of it."""


class Passes(trio.abc.Instrument):
    """Counts the scheduler's passes, so that a loop in which no time passes ends."""

    def __init__(self) -> None:
        self.count = 0
        self.stuck: Callable[[], None] = lambda: None

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1
        if self.count == PASSES_MAX:
            self.stuck()


def run_seeded(world: World, main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` as the world's seed has it. Raises what it raises."""
    passes = Passes()
    passes.stuck = world.stuck
    with _replaced(world):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[passes])


@contextlib.contextmanager
def _replaced(world: World) -> Iterator[None]:
    chance = random.Random(f"{world.seed}/chance")
    alignment = DIRECT if world.plan.direct else BUFFERED

    async def in_place(
        work: Callable[..., Any],
        *args: Any,
        limiter: trio.CapacityLimiter | None = None,
        **_options: object,
    ) -> Any:
        return await world.in_thread(work, args, limiter)

    scheduler = trio._core._run
    state, before = random.getstate(), scheduler._r.getstate()
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (trio.to_thread, "run_sync", in_place),
            (os, "fsync", world.fsync),
            (secrets, "token_bytes", chance.randbytes),
            (secrets, "token_hex", lambda count: chance.randbytes(count).hex()),
            (uringd.catalog_schema, "ROOM_BYTES", ROOM_BYTES),
            (uringd.uploads, "inode_of", world.inode),
            (uringd.reconcile, "inode_of", world.inode),
            (uringd.client.link, "open_stream", world.network.open_stream),
            (libc, "statx_direct_alignment", lambda _fd: alignment),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        stack.callback(random.setstate, state)
        stack.callback(scheduler._r.setstate, before)
        stack.callback(structlog.configure, **structlog.get_config())
        scheduler._r.seed(world.seed)
        random.seed(world.seed)
        structlog.configure(processors=[_listening(world)])
        yield


def _listening(world: World) -> Callable[..., Any]:
    def listen(_logger: object, level: str, event: MutableMapping[str, Any]) -> Any:
        world.logged(level, event)
        raise structlog.DropEvent

    return listen
