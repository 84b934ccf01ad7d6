"""A SIGKILL at every step of a group: no torn file is ever seen, and the next start cleans up."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.uringd.small.killed import FILES, content_of

if TYPE_CHECKING:
    from tests.uringd.conftest import Serving

CHILD = [
    sys.executable,
    "-I" if sys.flags.isolated else "-P",
    str(Path(__file__).with_name("killed.py")),
]
STEPS = 10
"""Before and after each of write, barrier, rename, sync_directory and close."""
RENAMED_FROM = 5
"""From this step on the files have their names."""


def die(root: Path, step: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CHILD, str(root), str(step)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("step", range(STEPS + 1))
async def test_a_kill_at_any_step_leaves_whole_files_or_none(
    serving: Serving, tmp_path: Path, step: int
) -> None:
    root = tmp_path / "root"
    done = die(root, step)
    if step == STEPS:
        assert (done.returncode, done.stdout) == (0, "published\n"), done.stderr
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
    spool = os.listdir(root / ".uringd" / "spool")
    assert len(spool) == (FILES if 1 <= step < RENAMED_FROM else 0)
    async with serving() as daemon:
        assert daemon.spool == []
        wanted = [f"file-{number}" for number in range(FILES)]
        assert daemon.published == (wanted if step >= RENAMED_FROM else [])
        for number, name in enumerate(daemon.published):
            assert (root / name).read_bytes() == content_of(number)


async def test_what_a_living_process_writes_stays(serving: Serving, tmp_path: Path) -> None:
    """Temporary files are locked for as long as their process has them."""
    spool = tmp_path / "root" / ".uringd" / "spool"
    spool.mkdir(parents=True, mode=0o700)
    mine, left = spool / "mine-0.put", spool / "left-0.put"
    left.write_bytes(b"half")
    with mine.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with serving() as daemon:
            assert daemon.spool == [mine.name]
    assert not left.exists()
