"""Which errors each operation of an upload can have, and what its client may hear of them.

An operation is one of four kinds, and named so:
- "ring FSYNC": what goes through the ring, by opcode. Fixed reads and writes count as plain ones.
- "submit": what hands operations over to the ring.
- "call os.dup": what the daemon asks the system for by itself.
- "catalog COMMIT": a statement of the catalog's, by its first word.

An operation that an upload does and that is not in this table fails a test: whoever adds one says
here how it can go wrong, or in `HARMLESS` why it cannot.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass

from uringd.wire import ErrorCode


class Told(enum.Enum):
    """Whether the client hears of an error. What it is told is true in any case."""

    NEVER = "it is mended, or costs the connection only: the client comes back, and no more"
    MAYBE = "it is told, unless what failed was of no use to this upload any more"
    ALWAYS = "nobody can mend it: it is told, as what it is"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One way to go wrong: an errno, a length that is too short, or an error of SQLite by name.

    `lasts`: whether a machine can be such that it goes on for ever. `ends`: whether it ends the
    server, and somebody starts it again. `also`: what else may be said.
    """

    number: int = 0
    told: Told = Told.MAYBE
    short: int = 0
    sqlite: str = ""
    lasts: bool = True
    ends: bool = False
    also: frozenset[ErrorCode] = frozenset()

    def __str__(self) -> str:
        """Name it."""
        short = f"short {self.short}" if self.short else ""
        return self.sqlite or short or errno.errorcode[self.number]

    @property
    def code(self) -> ErrorCode:
        """What a client is told of it, if anything."""
        full = self.number in {errno.ENOSPC, errno.EDQUOT} or self.sqlite == "SQLITE_FULL"
        return ErrorCode.NO_SPACE if full else ErrorCode.IO


def _each(*numbers: int, told: Told = Told.MAYBE) -> tuple[Wrong, ...]:
    return tuple(Wrong(number, told) for number in numbers)


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
ENDED_EARLY = (errno.EINTR, errno.ECANCELED)

RING: dict[str, tuple[Wrong, ...]] = {
    "OPENAT2": _each(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, *ENDED_EARLY),
    "MKDIRAT": _each(*DISK_FULL, errno.EIO, errno.ENOMEM, errno.ECANCELED, told=Told.ALWAYS),
    "FALLOCATE": (
        *_each(errno.EIO, errno.ENOMEM, errno.ECANCELED, told=Told.ALWAYS),
        *_each(*DISK_FULL),  # less may fit, where the step was a guess
        Wrong(errno.EINTR),  # tried again, a few times
        Wrong(errno.EOPNOTSUPP, Told.NEVER),
    ),
    "WRITE": (
        *_each(*DISK_FULL, errno.EIO, errno.ENOMEM, errno.EAGAIN, *ENDED_EARLY, told=Told.ALWAYS),
        Wrong(short=4096, told=Told.NEVER),
    ),
    # ECANCELED is also what those behind it in a chain say: none of them was done.
    "FSYNC": _each(*DISK_FULL, errno.EIO, *ENDED_EARLY, told=Told.ALWAYS),
    "FTRUNCATE": _each(errno.EIO, errno.ENOMEM, *ENDED_EARLY),
    "RENAMEAT": _each(*DISK_FULL, errno.EIO, errno.ENOMEM, errno.ECANCELED, told=Told.ALWAYS),
    "UNLINKAT": _each(errno.EIO, errno.ENOMEM, errno.ECANCELED, told=Told.ALWAYS),
    # Of descriptors whose files are durable, or not wanted.
    "CLOSE": _each(*DISK_FULL, errno.EIO, errno.EINTR, told=Told.NEVER),
}

CALLS: dict[str, tuple[Wrong, ...]] = {
    "os.dup": _each(errno.EMFILE, told=Told.ALWAYS),
    "os.fstatvfs": _each(errno.EIO, errno.ENOSYS, told=Told.NEVER),  # only to ask for no more
    # Without locks nobody can tell whether a spool file is somebody's: BUSY.
    "fcntl.flock": (Wrong(errno.ENOLCK, also=frozenset({ErrorCode.BUSY})),),
    "F_SETFL": _each(errno.EINVAL, told=Told.NEVER),  # no O_DIRECT: through the page cache
    "os.readv": _each(errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM, told=Told.NEVER),
    "os.write": (
        *_each(errno.ECONNRESET, errno.EPIPE, errno.ENOBUFS, told=Told.NEVER),
        Wrong(errno.EAGAIN, Told.NEVER, lasts=False),  # the socket is said to be writable then
    ),
    "recv": _each(errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM, told=Told.NEVER),
}

SUBMIT = (
    # Nothing is taken: so it is with EBUSY and EINTR, too. For ever is a ring that broke, below.
    Wrong(errno.EAGAIN, Told.NEVER, lasts=False),
    Wrong(short=1, told=Told.NEVER),  # one operation or chain is taken, and what is behind it not
    # The kernel takes no more.
    Wrong(errno.EBADR, lasts=False, ends=True, also=frozenset({ErrorCode.SHUTTING_DOWN})),
)

SQLITE = tuple(Wrong(sqlite=name) for name in ("SQLITE_IOERR_FSYNC", "SQLITE_FULL", "SQLITE_BUSY"))
STATEMENTS = ("BEGIN", "SAVEPOINT", "SELECT", "INSERT", "UPDATE", "DELETE", "RELEASE", "COMMIT")

TABLE: dict[str, tuple[Wrong, ...]] = {
    **{f"ring {name}": wrongs for name, wrongs in RING.items()},
    "submit": SUBMIT,
    **{f"call {name}": wrongs for name, wrongs in CALLS.items()},
    **{f"catalog {name}": SQLITE for name in STATEMENTS},
}

HARMLESS: dict[str, str] = {
    "os.fstat": "of an open local file: its inode is in memory",
    "os.geteuid": "one is somebody",
    "os.close": "of directories and of what was unlinked: there is nothing to write back",
    "sqlite3.fetchone": "its statement has read the row already",
}
"""What else the daemon calls in an upload, and why no error of it is listed."""
