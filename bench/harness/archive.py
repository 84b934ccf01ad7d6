"""A real archive: a tar of files that every Linux machine has, big enough to mean something."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.harness.measurement import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TREES = ("/usr/lib", "/usr/share", "/usr/bin", sys.base_prefix)
"""The first one is the archive; the others fill it up where that is small."""

ARCHIVE_BYTES_MIN = 500 << 20
ARCHIVE_BYTES_MAX = 1 << 30
"""Small files come off a cold disk at 70 MiB/s or so: this much takes a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Files for an archive, relative to /, with their size in bytes."""

    trees: tuple[str, ...]
    paths: tuple[str, ...]
    size_bytes: int


def select_files(
    trees: Iterable[str] = TREES,
    at_least: int = ARCHIVE_BYTES_MIN,
    at_most: int = ARCHIVE_BYTES_MAX,
) -> Selection:
    """Take files, tree after tree, until there are `at_least` bytes; no more once `at_most`."""
    used, paths, size = [], [], 0
    for tree in trees:
        if size >= at_least:
            break
        used.append(tree)
        for path, length in _files_below(tree):
            if size >= at_most:
                break
            paths.append(path.lstrip("/"))
            size += length
    return Selection(tuple(used), tuple(paths), size)


def _files_below(tree: str) -> Iterator[tuple[str, int]]:
    """Files that can be read, and symbolic links, in the order of their names."""
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)  # of tens of thousands
            try:
                found = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISLNK(found.st_mode):
                yield path, 0
            elif stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK):
                yield path, found.st_size


def start_tar(selection: Selection, listing: Path) -> subprocess.Popen[bytes]:
    """Start tar; the archive is its stdout. `listing` is the file that tells it what to take."""
    if shutil.which("tar") is None:
        raise CannotRunError("there is no tar on this machine: apt-get install tar")
    listing.write_bytes(b"\0".join(os.fsencode(path) for path in selection.paths))
    command = ["tar", "-C", "/", "--create", "--no-recursion", "--null", f"--files-from={listing}"]
    return subprocess.Popen([*command, "--ignore-failed-read"], stdout=subprocess.PIPE)
