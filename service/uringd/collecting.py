"""When garbage is looked for: when much has ended, or nobody waits; not when many have come.

A full collection looks at every object there is. With 10,000 connections that is a million of them
and takes a quarter of a second, in which nobody is served. Python makes one whenever a quarter more
objects than before have lived for a while: so when a crowd has come, and it finds nothing, because
all of that is in use. What becomes garbage here is what ends, since a connection and its parts
refer to each other in circles. So a server's process leaves the young objects to Python, which
takes microseconds, and has the full collections made here. (Python 3.14 looks at old objects bit by
bit: there this changes nothing.)
"""

from __future__ import annotations

import gc

import trio

NEVER = 1_000_000_000
"""Young collections before Python makes a full one: more than there will be."""

ENDED_MIN = 256
"""Connections that ended, from which on a full collection is worth it: 13 MiB of garbage."""

ENDED_SHARE = 4
"""Or a quarter of those that are there: it looks at four for each that it frees."""

YOUNG_COLLECTIONS_MIN = 10
"""Young collections since the last full one, from which on what else was left is looked for: as
Python has it. That is some 70,000 objects, or ten megabytes."""

BUSY_PERIOD_S = 60.0
"""How often at the most that is done while somebody uploads: a 240th of the time, with 10,000."""


def leave_full_collections_to_the_server() -> None:
    """Have Python make none by itself. Of the whole process: for who starts one, before it runs."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)


class Collecting:
    """Makes the full collections of one server."""

    def __init__(self) -> None:
        self._ended = 0
        self._last = trio.current_time()

    def ended(self, remaining: int) -> None:
        """Take note that a connection ended, and that so many are left."""
        self._ended += 1
        if self._ended >= max(ENDED_MIN, remaining // ENDED_SHARE):
            self._collect()

    def consider(self, *, busy: bool) -> None:
        """Look for what else was left, now and then, and best when nobody uploads."""
        if gc.get_count()[2] < YOUNG_COLLECTIONS_MIN:
            return
        if not busy or trio.current_time() - self._last >= BUSY_PERIOD_S:
            self._collect()

    def _collect(self) -> None:
        gc.collect()
        self._ended = 0
        self._last = trio.current_time()
