"""The files and directories of a simulated disk: what is known of each, and how they are rebuilt.

Each has a number of its own, for the whole life of the disk: an inode's number is given again once
the file is gone, and is another one in a directory that was rebuilt.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from uringio.testing.content import Content
from uringio.testing.names import Names

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable

    from uringio.testing.names import Name

DIRECTORY_MODE = 0o700
ROOT = 1


class Tree:
    """What is below a directory: its names, and the content of its files by their numbers."""

    def __init__(self, directory: str | os.PathLike[str], kept: Collection[str]) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        self.kept = frozenset(kept)
        self.names = Names()
        self.contents: dict[int, Content] = {}
        self._numbers = {os.stat(self.directory).st_ino: ROOT}
        self._elsewhere: set[int] = set()  # files that were made by other means than the ring
        self._next = ROOT + 1

    def number(self, fd: int) -> int | None:
        """Tell the number of an open file or directory; None for one that is not below."""
        inode = os.fstat(fd).st_ino
        if inode not in self._numbers:
            self.look()
        return self._numbers.get(inode)

    def content(self, fd: int) -> Content | None:
        """Return what is known of an open file's bytes; None for one that is not below."""
        return self.contents.get(self._numbers.get(os.fstat(fd).st_ino, 0))

    def place(self, dir_fd: int, path: bytes) -> Name | None:
        """Find what a path names; None for one that leads out. Raises OSError."""
        parent, slash, last = os.fsdecode(path).rpartition("/")
        found = os.stat(parent or slash or ".", dir_fd=None if dir_fd < 0 else dir_fd)
        if found.st_ino not in self._numbers:
            self.look()
        directory = self._numbers.get(found.st_ino)
        if directory is None:
            return None
        if (directory, last) not in self.names.current:
            self.look()
        return directory, last

    def created(self, place: Name, fd: int) -> None:
        """Take note of a new file."""
        number = self._new_number(os.fstat(fd).st_ino)
        self.contents[number] = Content()
        self.names.change({place: number})

    def look(self) -> dict[int, Path]:
        """Take note of names that were changed elsewhere; the result is where each file is."""
        current = self.names.current
        linked = set(current.values())
        seen: dict[Name, int] = {}
        paths = {ROOT: self.directory}
        waiting = [ROOT]
        while waiting:
            directory = waiting.pop()
            for entry in _entries(paths[directory]):
                name = directory, entry.name
                number = self._numbers.get(entry.inode())
                if number is None or (name not in current and number not in linked):
                    number = self._found(entry)
                seen[name] = number
                paths[number] = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(number)
        for name in [name for name in current if name not in seen]:
            self.names.change({name: None})
        for name, number in seen.items():
            if current.get(name) != number:
                self.names.change({name: number})
        return paths

    def catch_up(self, number: int, where: Path | int) -> None:
        """Take what is in a file that was made elsewhere for one write; others are known.

        `where` is its path or a descriptor, whose own position stays where it is.
        """
        if number not in self._elsewhere:
            return
        path = f"/proc/self/fd/{where}" if isinstance(where, int) else where
        fd = os.open(path, os.O_RDONLY)
        try:
            content = self.contents[number]
            content.resize(os.fstat(fd).st_size)
            for offset, data in _extents(fd):
                content.write(offset, data)
        finally:
            os.close(fd)

    def catch_up_all(self) -> None:
        """Do so for all of them."""
        for number, path in self.look().items():
            self.catch_up(number, path)

    def rebuild(
        self, directory: str | os.PathLike[str], random: random.Random | None = None
    ) -> Tree:
        """Make this tree again in an empty directory: as it is, or with `random` as it survived."""
        if random is not None:
            self.catch_up_all()
        paths = self.look()
        after = Tree(directory, self.kept)
        if os.listdir(after.directory):
            raise ValueError(f"{directory} is not empty")
        after.names = self.names.copy()
        after.contents = {number: content.copy() for number, content in self.contents.items()}
        after._elsewhere, after._next = set(self._elsewhere), self._next  # its like
        if random is not None:
            after.names.settle(random, self.kept)
            for content in after.contents.values():
                content.settle(random)
        after._make(paths, survived=random is not None)  # its like
        return after

    def _make(self, paths: dict[int, Path], *, survived: bool) -> None:
        """Make what the names tell of, from the top; `paths` is where it was before."""
        below: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
        for (parent, name), number in sorted(self.names.current.items()):
            below[parent].append((name, number))
        made = {ROOT: self.directory}
        waiting = [ROOT]
        while waiting:
            directory = waiting.pop()
            for name, number in below[directory]:
                path = made[directory] / name
                if number in made:
                    os.link(made[number], path)
                    continue
                if number not in self.contents:
                    path.mkdir(DIRECTORY_MODE)
                    waiting.append(number)
                elif survived and name not in self.kept:
                    content = self.contents[number]
                    _write(path, content.pieces(), content.size)
                else:
                    _copy_file(paths[number], path)
                made[number] = path
                self._numbers[os.stat(path).st_ino] = number
        wanted = self.names.numbers()
        self.contents = {n: content for n, content in self.contents.items() if n in wanted}

    def _found(self, entry: os.DirEntry[str]) -> int:
        number = self._new_number(entry.inode())
        if not entry.is_dir(follow_symlinks=False):
            self.contents[number] = Content()
            if entry.name not in self.kept:
                self._elsewhere.add(number)
        return number

    def _new_number(self, inode: int) -> int:
        number = self._numbers[inode] = self._next
        self._next += 1
        return number


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    """Read a directory: files and directories, by name."""
    with os.scandir(directory) as scan:
        found = [e for e in scan if e.is_dir(follow_symlinks=False) or e.is_file()]
    return sorted(found, key=lambda entry: entry.name)


def _extents(fd: int) -> list[tuple[int, bytes]]:
    """Read what is no hole in a file."""
    extents = []
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append((start, os.pread(fd, end - start, start)))
    return extents


def _copy_file(source: Path, path: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    try:
        _write(path, _extents(fd), os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _write(path: Path, extents: Iterable[tuple[int, bytes]], size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for offset, data in extents:
            os.pwrite(fd, data, offset)
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
