"""ROOT: the published files, and `.uringd/` with what is not published yet.

Names come from clients, paths never do. Every access goes from a held directory descriptor by
openat2(2) with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS: nothing a client can
say, and no link that somebody plants meanwhile, leads out of ROOT.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from uringd.keyed_lock import KeyedLock
from uringd.listing import list_files
from uringd.wire import LIST_ENTRIES_MAX, PRIVATE_NAME, check_name
from uringio.exceptions import operation_error
from uringio.lowlevel import Reactor, operations, small_files

if TYPE_CHECKING:
    from collections.abc import Sequence

SPOOL_SUFFIX = ".part"
DIRECTORIES_KNOWN_MAX = 10_000
"""Directories known to be durable: about 1 MiB; beyond it they are fsynced once more."""

FREEING_MAX = 4
"""Files whose blocks are freed at a time: a device discards at its own speed, however many ask."""

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class RootError(Exception):
    """ROOT cannot be served; the text says why and what mends it."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published file: its size in bytes and when it was changed."""

    name: str
    size: int
    modified_ns: int


class Removal(enum.Enum):
    """What came of removing a spool file."""

    DONE = "removed"
    LOCKED = "a process holds it, or held it until it was killed"
    GONE = "there was none"


@dataclass(frozen=True, slots=True)
class HeldRoot:
    """Descriptors of ROOT, of its private directory and of its lock."""

    fd: int
    private_fd: int
    lock_fd: int


class Root:
    """An open ROOT, served by this server alone until its last process has called `close`.

    `held` is what another process of this server opened; it is this object's then. The lock is held
    by the open file description, which they share: until the last of them has ended. And `path` is
    not looked up again: by now another directory, or a link, may have that name.
    """

    def __init__(self, path: Path, held: HeldRoot | None = None) -> None:
        self.path = path
        self._durable: set[tuple[int, int]] = set()
        self.naming = KeyedLock()  # who gives a name to a file, until that is recorded
        self._walks = trio.CapacityLimiter(1)  # each takes a thread and reads the whole tree
        self._freeing = trio.CapacityLimiter(FREEING_MAX)
        with contextlib.ExitStack() as opened:
            self.held = self._open(opened) if held is None else _adopt(opened, held)
            self.fd = self.held.fd
            self._private_fd = self.held.private_fd
            try:
                self.spool_fd = _keep(opened, self.open_private("spool"))
            except OSError as exc:
                raise RootError(f"cannot write to {path}: {exc.strerror}") from exc
            self._opened = opened.pop_all()

    def _open(self, opened: contextlib.ExitStack) -> HeldRoot:
        path = self.path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = _keep(opened, os.open(path, DIRECTORY_FLAGS))
        except OSError as exc:
            raise RootError(f"cannot serve {path}: {exc.strerror}") from exc
        try:
            private_fd = _keep(opened, _make_private(fd, PRIVATE_NAME))
            return HeldRoot(fd, private_fd, _keep(opened, self._lock(private_fd)))
        except OSError as exc:
            raise RootError(f"cannot write to {path}: {exc.strerror}") from exc

    def _lock(self, private_fd: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open("lock", flags, 0o600, dir_fd=private_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RootError(
                f"another uringd serves {self.path}: stop it, or give this one a root of its own"
            ) from None
        return fd

    def close(self) -> None:
        """Let go of the directory and of its lock."""
        self._opened.close()

    @property
    def catalog_path(self) -> Path:
        """Where the catalog is, by way of the held directory."""
        return Path(f"/proc/self/fd/{self._private_fd}/catalog.sqlite3")

    def open_private(self, name: str) -> int:
        """Open a directory of our own in the private one, making it; the caller closes it."""
        return _make_private(self._private_fd, name)

    def sync_private(self) -> None:
        """Make the names in the private directory durable: the catalog's, the spool's."""
        os.fsync(self._private_fd)

    def spooled(self) -> set[str]:
        """Return the upload ids of all spool files."""
        return {
            entry.removesuffix(SPOOL_SUFFIX)
            for entry in os.listdir(self.spool_fd)
            if not entry.endswith(small_files.SPOOL_SUFFIX)
        }

    def remove_small(self) -> int:
        """Remove what groups of small uploads left in the spool; the result is how many there were.

        Nobody got an answer about them. Those of a living process are locked, and stay. Blocks.
        """
        return sum(self.remove_entry(entry) is Removal.DONE for entry in self.small_spooled())

    def small_spooled(self) -> list[str]:
        """Return the entries of the spool that groups of small uploads have made."""
        return [e for e in os.listdir(self.spool_fd) if e.endswith(small_files.SPOOL_SUFFIX)]

    def is_spooled(self, upload_id: str) -> bool:
        """Whether there is a spool file of that name."""
        return os.access(upload_id + SPOOL_SUFFIX, os.F_OK, dir_fd=self.spool_fd)

    # The last close of a file that has no name any more is what removes it: in close(2) itself, or
    # on the way back from io_uring_enter(2) for a CLOSE of a ring, the kernel drops the inode and
    # frees its blocks, in the thread that closed. That is nothing for one extent, and seconds for a
    # file of a thousand separate ranges on ext4 mounted with discard, which waits for the device.
    # In trio's thread every session would stand still meanwhile. So such a file is closed by a
    # worker thread; nothing else refers to it by then, for all its operations have completed.

    async def close_unlinked(self, fd: int) -> None:
        """Close a file that was unlinked, and free its blocks, in a worker thread.

        Shield it: a cancelled call may not have begun. What close(2) may say against the bytes
        is no news: nobody wants them.
        """
        with contextlib.suppress(OSError):
            await trio.to_thread.run_sync(os.close, fd, limiter=self._freeing)

    async def remove_spool(self, upload_id: str) -> Removal:
        """Remove a spool file that no process holds any more.

        A killed server's writes can reach the disk seconds after it died, and its locks are held
        until the last of them: a locked file is left for later. Done whole, in a worker thread, or
        cancelled before it began.
        """
        remove = self._remove_spool
        return await trio.to_thread.run_sync(remove, upload_id, limiter=self._freeing)

    def _remove_spool(self, upload_id: str) -> Removal:
        return self.remove_entry(upload_id + SPOOL_SUFFIX)

    def remove_entry(self, entry: str) -> Removal:
        """Remove an entry of the spool that no process has locked. Blocks."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(entry, flags, dir_fd=self.spool_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(fd).st_nlink:
                    return Removal.GONE  # until it was ours; the entry may be another one's now
                os.unlink(entry, dir_fd=self.spool_fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return Removal.GONE
        except OSError:  # locked, or nothing that we made
            return Removal.LOCKED
        return Removal.DONE

    def open_published(self, name: str) -> list[int]:
        """Open a published file and the directories above it, from ROOT down. Raises OSError."""
        *parents, last = check_name(name)
        fds = self.open_directories(parents)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fds.append(os.open(last, flags, dir_fd=fds[-1]))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def open_directories(self, components: Sequence[str]) -> list[int]:
        """Open ROOT and the directories below it, one in the other. Raises OSError."""
        fds = [os.dup(self.fd)]
        try:
            for component in components:
                flags = DIRECTORY_FLAGS | os.O_NOFOLLOW
                fds.append(os.open(component, flags, dir_fd=fds[-1]))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    async def find(self, reactor: Reactor, name: str) -> Published | None:
        """Look for a published file; None when there is none of that name."""
        found = await self._look(reactor, name)
        if found is None or not _is_file(found):
            return None
        return Published(name, found.st_size, found.st_mtime_ns)

    async def check_free(self, reactor: Reactor, name: str, *, overwrite: bool) -> None:
        """Raise OperationError unless a file may be published under this name, as things stand.

        EEXIST: it is a directory's, or anything's without `overwrite`. ENOTDIR, ELOOP: it would
        pass through something that is no directory.
        """
        found = await self._look(reactor, name)
        if found is not None and (not overwrite or stat.S_ISDIR(found.st_mode)):
            raise operation_error(errno.EEXIST, "create", name)

    async def _look(self, reactor: Reactor, name: str) -> os.stat_result | None:
        """Stat whatever has this name, a link itself too; None when nothing has."""
        flags = os.O_PATH | os.O_NOFOLLOW
        fd = await reactor.perform(operations.open_beneath(self.fd, name, flags))
        if fd == -errno.ENOENT:
            return None
        if fd < 0:
            raise operation_error(-fd, "open", name)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    async def open_parent(self, reactor: Reactor, components: tuple[str, ...]) -> int:
        """Open the directory a name belongs into, making what is missing; the caller closes it.

        Each directory on the way is durable before anything is published in it: its parent was
        fsynced by this process, whoever made it.
        """
        try:
            fd = os.dup(self.fd)
        except OSError as exc:
            raise operation_error(exc.errno or errno.EMFILE, "open", components[-1]) from exc
        try:
            for component in components[:-1]:
                child = await self._open_child(reactor, fd, component)
                os.close(fd)
                fd = child
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def _open_child(self, reactor: Reactor, parent_fd: int, component: str) -> int:
        opening = operations.open_beneath(parent_fd, component, os.O_RDONLY | os.O_DIRECTORY)
        fd = await reactor.perform(opening)
        if fd == -errno.ENOENT:
            made = await reactor.perform(operations.make_directory(parent_fd, component, 0o777))
            if made < 0 and made != -errno.EEXIST:
                raise operation_error(-made, "mkdir", component)
            fd = await reactor.perform(opening)
        if fd < 0:
            raise operation_error(-fd, "search", component)
        try:
            await self._make_durable(reactor, parent_fd, fd, component)
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def _make_durable(
        self, reactor: Reactor, parent_fd: int, fd: int, component: str
    ) -> None:
        """Fsync a directory's parent, unless this process has done so since it found it.

        Also for one that was there: whoever made it, another upload or a server that was killed,
        may not have come to its fsync.
        """
        found = os.fstat(fd)
        key = (found.st_dev, found.st_ino)
        if key in self._durable:
            return
        synced = await reactor.perform(operations.fsync(parent_fd))
        if synced < 0:
            raise operation_error(-synced, "fsync", f"the directory of {component}")
        if len(self._durable) >= DIRECTORIES_KNOWN_MAX:
            self._durable.clear()
        self._durable.add(key)

    async def list_published(self, prefix: str, after: str, limit: int) -> list[Published]:
        """List published files in byte order of their names: those with `prefix`, above `after`.

        One more than `limit` is looked for, so that the caller can tell whether there are more.
        """
        count = min(limit or LIST_ENTRIES_MAX, LIST_ENTRIES_MAX) + 1
        found = await trio.to_thread.run_sync(
            list_files, self.fd, prefix, after, count, limiter=self._walks
        )
        return [Published(name, entry.st_size, entry.st_mtime_ns) for name, entry in found]


def inode_of(fd: int) -> int:
    """Return an open file's inode number as the catalog has it."""
    return signed_inode(os.fstat(fd).st_ino)


def signed_inode(number: int) -> int:
    """Return an inode number as a signed 64-bit integer, which is what SQLite stores."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _keep(opened: contextlib.ExitStack, fd: int) -> int:
    """Have a descriptor closed with the others."""
    opened.callback(os.close, fd)
    return fd


def _adopt(opened: contextlib.ExitStack, held: HeldRoot) -> HeldRoot:
    for fd in (held.fd, held.private_fd, held.lock_fd):
        _keep(opened, fd)
    return held


def _make_private(parent_fd: int, name: str) -> int:
    """Open a directory that is this user's alone, making it where there is none.

    Who may write to ROOT may have made it before us, with links in it to where we would write the
    catalog. Raises OSError, RootError.
    """
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        os.fsync(parent_fd)
    except FileExistsError:
        pass
    fd = os.open(name, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=parent_fd)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE:
        os.close(fd)
        raise RootError(
            f"{name} in the directory to be served can be written by others (it is of user "
            f"{found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}): move it away, or make it "
            "yours alone by chown and chmod 700"
        )
    return fd


def _is_file(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode)
