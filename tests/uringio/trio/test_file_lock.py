"""Locks of ranges between open files: exclusive, all or none, and bounded in time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from uringio._trio.file_lock import FLOCK, LOCK_WAIT_S, Claim, locked, try_flock
from uringio.exceptions import OperationError


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptions of one file."""
    fds = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    yield fds[0], fds[1]
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_the_record_has_the_size_of_struct_flock() -> None:
    assert FLOCK.size == 32


async def test_another_description_waits_for_the_same_bytes(
    two: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    got = trio.Event()

    async def take() -> None:
        async with locked([Claim(other, 5, 1)], "file"):
            got.set()

    async with trio.open_nursery() as nursery:
        async with locked([Claim(one, 0, 10)], "file"):
            nursery.start_soon(take)
            await trio.sleep(1)
            assert not got.is_set()
        with trio.fail_after(1):
            await got.wait()


async def test_other_bytes_are_free(two: tuple[int, int]) -> None:
    one, other = two
    async with locked([Claim(one, 0, 10), Claim(one, 20, 5)], "file"):
        with trio.fail_after(60):
            async with locked([Claim(other, 10, 10)], "file"):
                pass


async def test_claims_on_several_descriptors_are_had_together_or_not_at_all(
    two: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with locked([Claim(other, 10, 1)], "file"):
        with trio.move_on_after(1) as scope:
            async with locked([Claim(one, 0, 10), Claim(one, 10, 10)], "file"):
                raise AssertionError("the second is taken")
        assert scope.cancelled_caught
        async with locked([Claim(other, 0, 10)], "file"):
            pass


async def test_a_wait_ends_with_the_reason(
    two: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with locked([Claim(one, 7, 10)], "file"):
        started = trio.current_time()
        with pytest.raises(OperationError, match="somebody else holds it") as info:
            async with locked([Claim(other, 7, 10)], "file"):
                pass
        assert trio.current_time() - started >= LOCK_WAIT_S
    error = info.value
    assert (error.errno, error.operation, error.path, error.offset) == (
        errno.EBUSY,
        "lock",
        "file",
        7,
    )


async def test_a_refused_lock_is_an_error_at_once(tmp_path: Path) -> None:
    """A write lock needs a descriptor that is open for writing (EBADF)."""
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file, pytest.raises(OperationError) as info:
        async with locked([Claim(file.fileno(), 0, 1)], "file"):
            pass
    assert info.value.errno == errno.EBADF


async def test_claims_that_were_cleared_stay_until_the_descriptor_goes(
    two: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    one, other = two
    async with locked([Claim(one, 0, 1)], "file") as held:
        held.clear()
    with trio.move_on_after(1) as scope:
        async with locked([Claim(other, 0, 1)], "file"):
            pass
    assert scope.cancelled_caught
    os.close(one)
    async with locked([Claim(other, 0, 1)], "file"):
        pass


def test_a_whole_file_is_locked_by_one_description(two: tuple[int, int]) -> None:
    one, other = two
    assert try_flock(one)
    assert not try_flock(other)
    os.close(one)
    assert try_flock(other)
