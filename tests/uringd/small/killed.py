"""Publish a group below ROOT and die at a step: `killed.py ROOT STEP`, for test_kills.py.

STEP counts the calls of a group from 0, and each in two halves: before it, and after it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from uringd.root import Root
from uringd.small.group import publish_group
from uringd.small.memory import Room
from uringd.small.put import Put
from uringd.wire import Durability, crc32c
from uringio.lowlevel import small_files

FILES = 6
LENGTH = 20_000


class Nobody:
    """Nobody asks: who would answer is dead."""

    transport = "unix"

    def answered(self, put: Put) -> None:
        """Do nothing."""


class Dying:
    """A real group in a process that is killed at a step."""

    def __init__(self, real: small_files.SmallGroup, step: int) -> None:
        self.real, self.left = real, step

    def _step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def write(self, files: Sequence[small_files.SmallFile], *, sync: bool) -> None:
        self._step()
        self.real.write(files, sync=sync)
        self._step()

    def barrier(self) -> int:
        self._step()
        result = self.real.barrier()
        self._step()
        return result

    def rename(self, files: Sequence[small_files.SmallFile]) -> None:
        self._step()
        self.real.rename(files)
        self._step()

    def sync_directory(self, dir_fd: int) -> int:
        self._step()
        result = self.real.sync_directory(dir_fd)
        self._step()
        return result

    def close(self, files: Sequence[small_files.SmallFile]) -> None:
        self._step()
        self.real.close(files)
        self._step()


def content_of(number: int) -> bytes:
    """Make the content of a file: known again, and no part like another."""
    return bytes((number + at * at) % 251 for at in range(LENGTH))


def main() -> None:
    """Publish, and die on the way; say so when it was not on the way."""
    root = Root(Path(sys.argv[1]))
    puts = []
    for number in range(FILES):
        content = content_of(number)
        put = Put(
            *(Nobody(), 1, f"file-{number}", (f"file-{number}",), content, crc32c(content)),
            *(False, False, Durability.PUBLISHED, Room(0), 0.0),
        )
        put.place(root.fd)
        puts.append(put)
    group = Dying(small_files.open_group(root.spool_fd, "killed-", 0), int(sys.argv[2]))
    publish_group(group, puts, trusts_barrier=True)
    print("published", flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main()
