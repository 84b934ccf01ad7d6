"""Where a short write goes on, and which error it ends with."""

from __future__ import annotations

import errno
import resource

import pytest

from uringio._ring import operations
from uringio._ring.short_writes import rest_of_write, write_error

DATA = bytes(range(256)) * 64


@pytest.mark.parametrize(
    ("offset", "written", "expected"),
    [
        (8192, 4096, 12288),  # on a block
        (8192, 5000, 12288),  # the block that was half done is done again
        (8192, 512, 8704),  # not even one: from the very byte
        (7, 4080, 4087),  # the same for a buffered write, whose start is no block
        (7, 4090, 4096),
    ],
)
def test_it_goes_on_from_the_last_whole_block(offset: int, written: int, expected: int) -> None:
    operation = operations.write(3, DATA, offset, 10_000, buffer_index=5, flags=2)
    rest = rest_of_write(operation, written)
    assert rest is not None
    assert (rest.fd, rest.offset, rest.buffer_index, rest.flags) == (3, expected, 5, 2)
    assert rest.offset + rest.length == offset + 10_000
    assert rest.data is not None
    assert bytes(rest.data)[: rest.length] == DATA[expected - offset : 10_000]


@pytest.mark.parametrize("offset", [0, 512, 100])
def test_it_ends_however_short_the_writes_are(offset: int) -> None:
    """Each goes on beyond where the one before stopped, or starts there."""
    operation = operations.write(3, DATA, offset, len(DATA))
    stopped, count = offset, 0
    while (operation.offset + min(512, operation.length)) < offset + len(DATA):
        rest = rest_of_write(operation, 512)
        assert rest is not None
        operation = rest
        assert operation.offset >= stopped - 4096
        stopped, count = operation.offset, count + 1
        assert count < 100


@pytest.mark.parametrize(
    ("result", "flags"), [(0, 0), (-errno.EIO, 0), (512, operations.RWF_ATOMIC)]
)
def test_nothing_goes_on_after_an_error_nor_after_a_part_of_what_is_atomic(
    result: int, flags: int
) -> None:
    operation = operations.write(3, DATA, 0, len(DATA), flags=flags)
    assert rest_of_write(operation, result) is None
    failure = write_error(operation, result, "the path")
    assert (failure.errno, failure.length) == (errno.EIO, len(DATA))


@pytest.mark.parametrize(
    ("result", "limit", "expected"),
    [
        (0, -1, errno.EIO),
        (-errno.ENOSPC, 10, errno.ENOSPC),
        (-errno.EINVAL, -1, errno.EINVAL),
        (-errno.EINVAL, 20_000, errno.EINVAL),
        (-errno.EINVAL, 10_000, errno.EFBIG),
    ],
)
def test_the_error_names_the_true_cause(
    monkeypatch: pytest.MonkeyPatch, result: int, limit: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, -1))
    failure = write_error(operations.write(3, DATA, 4096, 8192), result, "the path")
    assert (failure.errno, failure.operation, failure.path) == (expected, "write", "the path")
    assert (failure.offset, failure.length) == (4096, 8192)
