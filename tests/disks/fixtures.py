"""Fixtures for tests on disks that fail: import those that a test module wants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks.fuse_disk import MARK
from tests.disks.mounted import (
    FuseDisk,
    LackingError,
    check_can_have,
    file_system,
    fuse_disk,
    make_image,
)
from tests.lacking import lacking


class FaultyFileSystem:
    """A file system on a disk that marked data makes fail, mounted at `point`."""

    def __init__(self, kind: str, disk: FuseDisk, point: Path) -> None:
        self.kind = kind
        self.disk = disk
        self.point = point

    @staticmethod
    def marked(content: bytes, word: str, offset: int = 0) -> bytes:
        """Have a content's write fail, or be held, or have the next flush fail (fuse_disk.py)."""
        mark = MARK + word.encode() + b";"
        return content[:offset] + mark + content[offset + len(mark) :]


@pytest.fixture(params=["ext4", "xfs"])
def faulty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaultyFileSystem]:
    """A faulty disk; what the test has asked it to hold is let go in the end."""
    kind = request.param
    with contextlib.ExitStack() as stack:
        try:
            check_can_have(kind)
            image = make_image(tmp_path / "image")
            disk = stack.enter_context(fuse_disk(tmp_path / "fuse", "faulty", image, direct=True))
            stack.enter_context(file_system(disk, kind, tmp_path / "mounted"))
        except LackingError as exc:
            lacking(str(exc))
        stack.callback(disk.control, b"release")
        yield FaultyFileSystem(kind, disk, tmp_path / "mounted")
