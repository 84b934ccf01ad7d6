"""A writer on disks that fail: real file systems, a real ring, and data that says what fails."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

import uringio
from tests.disks.fixtures import FaultyFileSystem, faulty
from tests.disks.mounted import run
from tests.uringio.trio.journals import leave_journal
from uringio.exceptions import PendingReplaceError

__all__ = ["faulty"]

SLOTS, SLOT_BYTES = 4, 64 << 10
CONTENT = random.Random(1).randbytes(5 * SLOT_BYTES + 77)

pytestmark = pytest.mark.root


async def write(path: Path, content: bytes, direct: str = "auto") -> None:
    async with uringio.open_ring(SLOTS, SLOT_BYTES) as ring:
        before = len(os.listdir("/proc/self/fd"))
        try:
            async with ring.create(path, direct=direct) as writer:  # type: ignore[arg-type]
                await writer.write(content)
                await writer.commit()
        finally:
            assert ring.statistics().free_slots == SLOTS
            assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("word", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("direct", ["require", "never"])
async def test_a_block_that_is_not_written_is_no_commit_and_leaves_nothing(
    faulty: FaultyFileSystem, direct: str, word: str
) -> None:
    """Direct, the write says so itself; through the page cache the fsync does, once."""
    await write(faulty.point / "before", CONTENT, direct)
    with pytest.raises(uringio.OperationError) as caught:
        await write(faulty.point / "bad", faulty.marked(CONTENT, word, 2 * SLOT_BYTES), direct)
    error = caught.value
    assert error.errno == getattr(errno, word)
    assert error.operation == ("write" if direct == "require" else "fsync")
    await write(faulty.point / "after", CONTENT, direct)
    there = set(os.listdir(faulty.point)) - {"lost+found"}
    assert there == {"before", "after"}
    for name in there:
        assert (faulty.point / name).read_bytes() == CONTENT


async def test_a_flush_that_fails_once_is_no_commit(faulty: FaultyFileSystem) -> None:
    await write(faulty.point / "before", CONTENT)
    bad = faulty.marked(CONTENT, "FLUSH", 2 * SLOT_BYTES)
    with pytest.raises(uringio.OperationError) as caught:
        await write(faulty.point / "bad", bad)
    assert caught.value.operation == "fsync"
    # The file system may be dead: its error is asked for by nobody, what is on the disk counts.
    run("umount", faulty.point)
    run("mount", "-t", faulty.kind, faulty.disk.device, faulty.point)
    assert (faulty.point / "before").read_bytes() == CONTENT
    assert not (faulty.point / "bad").exists()


async def test_a_journal_that_the_disk_has_lost_is_torn_however_often_the_file_is_opened(
    faulty: FaultyFileSystem,
) -> None:
    """A killed replace left it in the page cache, which shows it on after its fsync has failed."""
    path = faulty.point / "file"
    await write(path, CONTENT)
    data = faulty.marked(CONTENT[SLOT_BYTES : 3 * SLOT_BYTES], "EIO", SLOT_BYTES)
    leave_journal(path, 100, data)
    async with uringio.open_ring(SLOTS, SLOT_BYTES) as ring:
        with pytest.raises(PendingReplaceError):
            await ring.open(path, "r+")
        assert path.read_bytes() == CONTENT, "nothing rests on a journal that is not durable"
        async with await ring.open(path, "r+") as file:
            [recovered] = file.recovered
            assert recovered.outcome == "torn"
    assert path.read_bytes() == CONTENT
    assert set(os.listdir(faulty.point)) - {"lost+found"} == {"file"}
