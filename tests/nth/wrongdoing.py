"""Makes the n-th operation go wrong that does not pass the ring: system calls, and statements.

Only what the product calls counts, by the module that calls: the simulated disk and trio do calls
of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from uringio.exceptions import BrokenError
from uringio.testing import SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.nth.errors import Wrong

real_fcntl = fcntl.fcntl

PRODUCT = ("uringd.", "uringio._trio.")
NOT_THE_DAEMON = ("uringd.client",)
WATCHED = {"posix": "os", "fcntl": "fcntl", "mmap": "mmap", "sqlite3": "sqlite3"}
"""Modules of C whose functions ask the system for something, and what they are called here."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What goes wrong: the `nth` operation of a kind, from 1; with `lasting` all from there on."""

    kind: str
    nth: int
    wrong: Wrong
    lasting: bool

    def __str__(self) -> str:
        """Say it."""
        since = "from the" if self.lasting else "at the"
        return f"{self.wrong} {since} {self.nth}. {self.kind}"


class Wrongdoer:
    """Counts operations while it is `armed`, and has one of them, or all from it on, go wrong."""

    def __init__(self, injection: Injection | None) -> None:
        self.injection = injection
        self.counts: Counter[str] = Counter()
        self.hits = 0
        self.armed = False

    def next(self, kind: str) -> Wrong | None:
        """Count an operation; the result is how it goes wrong, if it does."""
        if not self.armed:
            return None
        self.counts[kind] += 1
        chosen = self.injection
        if chosen is None or kind != chosen.kind:
            return None
        past = self.counts[kind] - chosen.nth
        if past != 0 and not (past > 0 and chosen.lasting):
            return None
        self.hits += 1
        return chosen.wrong

    def call(self, name: str) -> None:
        """Count a system call. Raises OSError if it goes wrong."""
        wrong = self.next(f"call {name}")
        if wrong is not None:
            raise OSError(wrong.number, os.strerror(wrong.number))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between the product and the system."""
        with contextlib.ExitStack() as stack:
            for owner, name in (
                (os, "dup"),
                (os, "fstatvfs"),
                (os, "readv"),
                (os, "write"),
                (fcntl, "flock"),
                (fcntl, "fcntl"),
            ):
                self._replace(stack, owner, name, self._counted)
            self._replace(stack, trio._socket._SocketType, "recv", self._counted_recv)
            self._replace(stack, sqlite3, "connect", self._counted_connect)
            self._replace(stack, SimulatedRing, "submit", self._counted_submit)
            yield

    def _replace(
        self, stack: contextlib.ExitStack, owner: Any, name: str, make: Callable[..., Any]
    ) -> None:
        before = getattr(owner, name)
        stack.callback(setattr, owner, name, before)
        setattr(owner, name, make(f"{getattr(owner, '__name__', '')}.{name}", before))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            asked = name
            if real is real_fcntl:
                asked = "F_SETFL" if args[1] == fcntl.F_SETFL else ""  # F_GETFL cannot fail
            if asked and is_product(sys._getframe(1)):
                self.call(asked)
            return real(*args, **options)

        return call

    def _counted_recv(self, _name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        async def recv(socket: Any, *args: Any) -> Any:
            if is_product(sys._getframe(1)):
                self.call("recv")
            return await real(socket, *args)

        return recv

    def _counted_submit(self, _name: str, real: Callable[..., int]) -> Callable[..., int]:
        def submit(ring: SimulatedRing) -> int:
            wrong = self.next("submit") if ring.prepared else None
            if wrong is None:
                return real(ring)
            if wrong.ends:
                raise BrokenError(f"injected: {os.strerror(wrong.number)}")
            left = ring._prepared[wrong.short :]
            del ring._prepared[wrong.short :]
            real(ring)
            ring._prepared += left
            return ring.prepared

        return submit

    def _counted_connect(self, _name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return partial(real, factory=partial(Database, self))


class Database(sqlite3.Connection):
    """A connection whose statements are counted.

    What SQLite does itself at such an error: it rolls the transaction back, but for SQLITE_BUSY
    (sqlite.org/lang_transaction.html). A rollback cannot fail.
    """

    def __init__(self, wrongdoer: Wrongdoer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wrongdoer = wrongdoer

    def execute(self, sql: str, *args: Any) -> Any:
        """Count, and do it or fail."""
        self._consider(sql)
        return super().execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> Any:
        """Count, and do it or fail."""
        self._consider(sql)
        return super().executemany(sql, *args)

    def _consider(self, sql: str) -> None:
        word = sql.split(maxsplit=1)[0]
        wrong = None if word == "ROLLBACK" else self._wrongdoer.next(f"catalog {word}")
        if wrong is None:
            return
        if wrong.sqlite != "SQLITE_BUSY" and self.in_transaction:
            super().execute("ROLLBACK")
        error = sqlite3.OperationalError(f"injected: {wrong}")
        error.sqlite_errorname = wrong.sqlite
        raise error


def is_product(frame: FrameType | None) -> bool:
    """Whether a frame is of the daemon's code, or of the library's above the ring."""
    name = "" if frame is None else frame.f_globals.get("__name__", "")
    return name.startswith(PRODUCT) and not name.startswith(NOT_THE_DAEMON)


@contextlib.contextmanager
def watching() -> Iterator[set[str]]:
    """Take note of every function of C that the product calls and that may ask the system."""
    seen: set[str] = set()

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and is_product(frame):
            module = function.__module__ or type(function.__self__).__module__
            if module in WATCHED:
                seen.add(f"{WATCHED[module]}.{function.__name__}")

    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(None)
