"""A fork in the middle of I/O: the child has nothing of the ring, and its parent goes on."""
# A test may block on a small file.

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest
import trio

from uringio.exceptions import ForkedError
from uringio.lowlevel import Opcode, Operation, operations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import uringio
    from tests.uringio.conftest import OpenAny

SLOT = 16 << 10
SLOTS = 8
CONTENT = random.Random(1).randbytes(40 * SLOT + 1234)
REFUSALS, CLEANED_UP, FAILED = 4, 90, 99

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def refusals(*calls: Callable[[], object]) -> int:
    """How many of some calls are refused to a child."""
    count = 0
    for call in calls:
        try:
            call()
        except ForkedError:
            count += 1
    return count


async def misbehave(ring: uringio.Ring, directory: Path) -> int:
    """Do in a child what only its parent may: the exit code says what came of it."""
    raw, reactor = ring.reactor.ring, ring.reactor
    dir_fd = os.open(directory, os.O_RDONLY)
    before = os.listdir(directory)
    for name in before:
        result = await reactor.perform_always(operations.unlink(dir_fd, name))
        if result != -errno.EIO:
            return CLEANED_UP
    if os.listdir(directory) != before:
        return CLEANED_UP
    count = refusals(
        lambda: reactor.start(operations.fsync(dir_fd), print),
        lambda: raw.prepare(Operation(Opcode.NOP)),
        raw.submit,
        raw.reap,
    )
    raw.close()  # is nothing: the ring is the parent's
    return count


async def test_a_child_forked_in_the_middle_of_a_file_is_refused_and_removes_nothing(
    open_real: OpenAny, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    async with open_real(SLOTS, SLOT) as ring:
        async with ring.create(path) as writer:
            await writer.write(CONTENT[: 20 * SLOT + 5])
            assert ring.statistics().in_flight, "the fork is in the middle of it"
            child = os.fork()
            if child == 0:  # nothing may leave this block: it would run the rest of the tests
                code = FAILED
                try:
                    code = await misbehave(ring, tmp_path)
                finally:
                    os._exit(code)
            await writer.write(CONTENT[20 * SLOT + 5 :])
            _, status = await trio.to_thread.run_sync(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == REFUSALS
            await writer.commit()
        assert ring.statistics().in_flight == 0
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == CONTENT
