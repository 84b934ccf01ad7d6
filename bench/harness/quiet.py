"""The state before each measurement: nothing of the last one is left, and the disk is at rest.

What the kernel goes on doing after a file is gone: the journal commits the removal, and with the
mount option discard the device is told of every freed block only then. The next measurement would
pay for that. So: sync, then wait until the device's counters stand still for a while.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from bench.harness.environment import block_device

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.1
STILL_POLLS = 3
"""Readings in a row without a change that count as rest."""
FREE_BYTES_MIN = 8 << 30
"""What is left to the other measurements: four of the largest files."""
REST_TIMEOUT_S = 10.0
"""On a machine where others write all the time it never rests: go on then, and say so."""


def fresh_directory(path: Path) -> Path:
    """Make an empty directory; what was there before is removed, and with it its page cache."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def set_aside(path: Path) -> None:
    """Keep a directory of many small files beside, until all is removed at the end.

    ext4 does not give an inode to a new file that was freed in the last minute, and looks at every
    such one before it finds another: after some thousand removals a file cost 0.1 to 0.25 ms of CPU
    more, whoever created it. Where the disk is nearly full they are removed all the same.
    """
    if path.exists() and shutil.disk_usage(path).free >= FREE_BYTES_MIN:
        kept = sum(1 for other in path.parent.iterdir() if other.name.startswith(f"{path.name}-"))
        path.rename(path.with_name(f"{path.name}-{kept}"))


def wait_for_rest(directory: Path, timeout_s: float) -> bool:
    """Write out what is dirty, then wait until the device does nothing; False if it went on.

    A timeout of 0 does neither, for trying the harness out.
    """
    if not timeout_s:
        return False
    os.sync()
    device = block_device(directory)
    if device is None:
        return True
    counters = device / "stat"
    deadline = time.monotonic() + timeout_s
    seen, still = counters.read_text(), 0
    while still < STILL_POLLS and time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = counters.read_text()
        still = still + 1 if now == seen else 0
        seen = now
    return still == STILL_POLLS
