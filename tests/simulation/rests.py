"""What is left when all is over: nothing may be."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING

import trio

from tests.simulation.lane import LOST, Lane, Refused
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.simulation.world import World
    from uringio.testing import SimulatedRing

CATALOG = ("catalog.sqlite3", "catalog.sqlite3-wal")
TABLES = ("uploads", "ranges", "commits")

LIVENESS_S = 3600.0
"""What clients may take to come to their end once nothing goes wrong, by the simulated clock: the
longest patience in the product is that of an idle connection, 300 s, and one may follow another."""


async def clean_up(world: World) -> None:
    """Abort what clients have left, as an operator would."""
    with trio.move_on_after(LIVENESS_S):
        while not await _abort_all(world):  # noqa: ASYNC110  # it is the loop's body
            await trio.sleep(1)
        return
    world.broken("uploads that were left could not be aborted")


async def _abort_all(world: World) -> bool:
    lane = Lane(world, "operator")
    async with trio.open_nursery() as nursery:
        try:
            await lane.open(nursery)
            listed = await lane.ask(FrameType.LIST, pb.List(uploads=True))
            for upload in listed.uploads:
                await lane.ask(FrameType.ABORT, pb.Abort(upload_id=upload.upload_id))
                story = world.oracle.stories.get(upload.upload_id)
                if story is not None:  # else its client never heard of CREATE's answer
                    world.oracle.aborted(story)
            done = True
        except (Refused, *LOST) as exc:
            world.note("operator", exc)
            done = False
        lane.close()
        nursery.cancel_scope.cancel()
    return done


def not_removed(ring: SimulatedRing) -> set[str]:
    """Name the files whose removal a ring was made to fail.

    One that has no record then, its catalog having failed too, is the next start's to remove.
    """
    return {
        os.fsdecode(operation.path)
        for operation, result in ring.history
        if operation.opcode is Opcode.UNLINKAT and result not in {0, -errno.ENOENT}
    }


def look_for_rests(private: Path, excused: set[str], broken: Callable[[str], None]) -> None:
    """Look into the private directory of a daemon that has ended."""
    rests = sorted({*os.listdir(private / "spool")} - excused)
    if rests:
        broken(f"the spool has {rests} at the end")
    with contextlib.closing(sqlite3.connect(private / CATALOG[0])) as db:
        for table in TABLES:
            [count] = db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            if count:
                broken(f"the catalog has {count} rows of {table} at the end")


def descriptors() -> dict[str, str]:
    """List the open descriptors, and what each is of."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the list itself
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found
