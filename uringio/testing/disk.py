"""SimulatedDisk: a directory that can lose power, and shows what a disk could look like then.

Operations are done for real in a scratch directory, and a model keeps what of them is durable: the
bytes of each file as of its last fsync (`content.py`), the names of each directory as of its last
(`names.py`). `power_cut` makes a new directory of what is durable and of a part of what is not,
chosen by seed from all that the rules allow. `kill` makes one as a killed process leaves it: the
kernel still has all that was written, and no more of it is durable than was.

What the rules are, on any file system that is asked for nothing but what POSIX says:
- fsync(2), and fdatasync(2), of a file make its bytes and its size durable, and not its name.
- fsync(2) of a directory makes the names in it durable, and not the bytes behind them.
- A write with RWF_DSYNC makes its own bytes durable, and the size that it takes to read them.
- syncfs(2) makes everything durable.
- An fsync that failed has marked the pages clean. What it did not write is decided then: a later
  fsync succeeds and brings none of it (`lose`).
- Size and bytes are apart: fallocate(2) makes a file longer, and what was not written is zeros.
"""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

from uringio._ring.execute import execute
from uringio._ring.operations import RWF_DSYNC, Opcode
from uringio.testing.faults import PLAIN
from uringio.testing.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from uringio._ring.operations import Operation
    from uringio.testing.names import Name


class SimulatedDisk:
    """A scratch `directory` whose power can be cut. Give it to a `SimulatedRing`.

    What is in the directory already is durable. `kept` are names of files of somebody who syncs for
    himself, a database for example: they survive as they are, wherever they are.

    What is done by other means than the ring is noticed in part: names always; the bytes of files
    that were made elsewhere, when they are synced and when power is lost; an fsync or a syncfs when
    it is told. Example, for an application that saves by `save(ring, path, data)`:

        disk = SimulatedDisk(tmp_path / "disk", seed=7)
        async with run_ring(SimulatedRing(7, disk=disk)) as ring:
            await save(ring, disk.directory / "config", b"new")
            after = disk.power_cut(tmp_path / "after")
        assert (after.directory / "config").read_bytes() == b"new"
    """

    def __init__(
        self, directory: str | os.PathLike[str], seed: int = 0, *, kept: Collection[str] = ()
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311  # reproducible is what it has to be
        self._tree = Tree(directory, kept)
        self.syncfs()

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._tree.directory

    def perform(self, operation: Operation) -> int:
        """Do an operation, and take note of it: its result, or -errno."""
        try:
            if operation.opcode is Opcode.FSYNC:
                self.fsync(operation.fd)
                return 0
            if operation.opcode is Opcode.FALLOCATE:
                return self._fallocate(operation)
            place, other = self._places(operation)
        except OSError as exc:
            return -(exc.errno or errno.EIO)
        result = execute(operation)
        if result >= 0:
            self._note(operation, result, place, other)
        return result

    def fsync(self, fd: int) -> None:
        """Make a file or a directory durable: for code that calls os.fsync itself.

        The disk below is not asked for anything. Raises OSError for a bad descriptor.
        """
        number = self._tree.number(fd)
        content = self._tree.content(fd)
        if content is not None and number is not None:
            self._tree.catch_up(number, fd)
            content.sync()
        elif number is not None:
            self._tree.look()
            self._tree.names.sync(number)

    def syncfs(self) -> None:
        """Make everything durable: for code that calls syncfs(2)."""
        self._tree.catch_up_all()
        self._tree.names.sync_all()
        for content in self._tree.contents.values():
            content.sync()

    def lose(self, fd: int) -> None:
        """Let what a failed fsync of a file was to make durable be lost, or not, for good.

        Bytes can be, and that the file has grown over them. That it was cut is not lost, nor is
        anything of a directory: these are in the file system's journal, and one whose journal
        failed takes no more changes.
        """
        content = self._tree.content(fd)
        if content is not None:
            content.lose(self._random)

    def inode(self, fd: int) -> int:
        """Tell a number of an open file that stays the same through `kill` and `power_cut`.

        Its own inode number is another one in each new directory. Raises OSError for a file that
        is not on this disk.
        """
        number = self._tree.number(fd)
        if number is None:
            raise OSError(errno.EXDEV, f"descriptor {fd} is not on the disk at {self.directory}")
        return number

    def kill(self, directory: str | os.PathLike[str]) -> SimulatedDisk:
        """Make a new directory as it is now: what a process finds that is killed and comes again.

        This disk goes on as if nothing had happened.
        """
        return self._successor(self._tree.rebuild(directory))

    def power_cut(self, directory: str | os.PathLike[str]) -> SimulatedDisk:
        """Make a new directory as the disk could look if power was lost now; all of it is durable.

        Every call makes another one, by the seed. This disk goes on as if nothing had happened.
        """
        return self._successor(self._tree.rebuild(directory, self._random))

    def _successor(self, tree: Tree) -> SimulatedDisk:
        after = object.__new__(SimulatedDisk)
        after._tree = tree  # one of us
        after._random = random.Random(self._random.getrandbits(64))  # noqa: S311
        return after

    def _places(self, op: Operation) -> tuple[Name | None, Name | None]:
        """Find which names an operation may change; None for those that are not below."""
        if op.opcode in {Opcode.RENAMEAT, Opcode.LINKAT}:
            return self._tree.place(op.fd, op.path), self._tree.place(op.other_fd, op.other_path)
        creates = op.opcode in {Opcode.OPENAT, Opcode.OPENAT2} and op.flags & os.O_CREAT
        if creates or op.opcode in {Opcode.UNLINKAT, Opcode.MKDIRAT}:
            return self._tree.place(op.fd, op.path), None
        return None, None

    def _note(self, op: Operation, result: int, place: Name | None, other: Name | None) -> None:
        """Take note of what an operation did."""
        names = self._tree.names
        opcode = PLAIN.get(op.opcode, op.opcode)
        if opcode is Opcode.WRITE:
            self._written(op, result)
        elif opcode is Opcode.FTRUNCATE:
            self._resized(op.fd, op.length)
        elif opcode in {Opcode.OPENAT, Opcode.OPENAT2}:
            if place is not None and place not in names.current:
                self._tree.created(place, result)
            elif op.flags & os.O_TRUNC:
                self._resized(result, 0)
        elif opcode is Opcode.UNLINKAT and place is not None:
            names.change({place: None})
        elif opcode is Opcode.LINKAT and place is not None and other is not None:
            names.change({other: names.current[place]})
        elif opcode is Opcode.RENAMEAT and place is not None and other is not None:
            names.change({place: None, other: names.current[place]})
        elif place is not None or other is not None:
            self._tree.look()

    def _written(self, operation: Operation, length: int) -> None:
        content = self._tree.content(operation.fd)
        if content is None:
            return
        assert operation.data is not None
        content.write(operation.offset, bytes(memoryview(operation.data).cast("B")[:length]))
        if operation.flags & RWF_DSYNC:
            content.sync_range(operation.offset, length)

    def _resized(self, fd: int, size: int) -> None:
        content = self._tree.content(fd)
        if content is not None:
            content.resize(size)

    def _fallocate(self, operation: Operation) -> int:
        """Let the file grow, and reserve nothing: blocks are short here by a fault only."""
        end = operation.offset + operation.length
        if end > os.fstat(operation.fd).st_size:
            os.ftruncate(operation.fd, end)
        content = self._tree.content(operation.fd)
        if content is not None:
            content.grow(end)
        return 0
