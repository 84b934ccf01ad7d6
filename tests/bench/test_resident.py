"""resident.py: what the page cache holds of a file."""

import os
from pathlib import Path

import pytest

from bench.harness.environment import block_device
from bench.harness.resident import cached_bytes


def test_what_was_written_through_the_page_cache_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20) + b"end")
    assert cached_bytes(path) == (1 << 20) + 3


def test_what_was_dropped_is_not(tmp_path: Path) -> None:
    if block_device(tmp_path) is None:
        pytest.skip("a file system in memory has nothing but the page cache")
    path = tmp_path / "file"
    with path.open("xb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_bytes(path) == 0


def test_an_empty_file_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cached_bytes(tmp_path / "file") == 0
