"""The state of memory before each measurement: in use, as on a machine that has been up a while.

What a hypervisor does: memory that a guest does not use goes back to the host (free page reporting,
balloon), and each page of it that the guest uses again is a fault in the host. Buffered writes into
such memory run at a tenth to a half of their speed, for several times the CPU, and how many such
pages there are depends on what ran before. Touching some memory and giving it back just before the
clock starts does not help: the kernel hands out other pages. Where the page cache fills all memory,
as it does on any machine after a day of work, there are none: pages are used again at once.

So the page cache is filled by reading a file that is one hole: that needs no disk. Direct writes do
not notice; what would be compared with them without this step is the host, not os.write.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

HOLE_BYTES = 1 << 40
"""Length of the file that is one hole: no part of it is ever read twice."""
STEP_BYTES = 256 << 20
"""After each step it is looked whether there is less free memory than before."""
PIECE_BYTES = 4 << 20
FILL_TIMEOUT_S = 240.0
"""The first fill of 24 GiB takes 30 to 90 s where the host has to grant it all."""


class MemoryFiller:
    """Keeps all free memory filled with page cache, through the hole file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        with path.open("xb") as file:
            file.truncate(HOLE_BYTES)

    def fill(self) -> bool:
        """Read until free memory does not shrink any more; False if time was up before."""
        deadline = time.monotonic() + FILL_TIMEOUT_S
        before = free_memory_bytes()
        while time.monotonic() < deadline:
            self._read(STEP_BYTES)
            after = free_memory_bytes()
            if before - after < STEP_BYTES // 4:
                return True
            before = after
        return False

    def _read(self, length: int) -> None:
        piece = bytearray(PIECE_BYTES)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            for _ in range(length // PIECE_BYTES):
                os.preadv(fd, [piece], self._offset)
                self._offset = (self._offset + PIECE_BYTES) % HOLE_BYTES
        finally:
            os.close(fd)


def free_memory_bytes() -> int:
    """Memory that nobody uses, not even as page cache (proc(5), meminfo)."""
    match = re.search(r"^MemFree:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) << 10 if match else 0
