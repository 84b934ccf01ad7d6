"""What only the page cache has is not there: starts on a disk that has lost what was written."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from tests.disks.fixtures import FaultyFileSystem, faulty
from uringd.catalog import open_catalog
from uringd.reconcile import reconcile
from uringd.records import ReceiptRecord, UploadRecord
from uringd.root import Root
from uringd.wire import Durability, crc32c

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["faulty"]

UPLOAD_ID = "0123456789abcdef" * 2
DATA = random.Random(3).randbytes(10_000)
STARTS = 3

UPLOAD = UploadRecord(
    UPLOAD_ID, "file", None, overwrite=False, durability=Durability.WRITTEN, resumable=True
)

pytestmark = pytest.mark.root


def receipt_of(path: Path, data: bytes) -> ReceiptRecord:
    return ReceiptRecord(
        UPLOAD_ID,
        "file",
        len(data),
        crc32c(data),
        Durability.WRITTEN,
        "io_uring",
        direct=False,
        transport="unix",
        seconds=0.5,
        instance_id=bytes(16),
        epoch=1,
        inode=path.stat().st_ino,
    )


async def test_a_file_that_the_disk_has_lost_is_not_called_published_however_often_one_starts(
    faulty: FaultyFileSystem,
) -> None:
    """The first start hears of it from its fsync; the next one's would succeed."""
    root = Root(faulty.point / "root")
    data = faulty.marked(DATA, "EIO")
    path = root.path / "file"
    try:
        async with open_catalog(root.catalog_path) as catalog:
            path.write_bytes(data)
            await catalog.add(UPLOAD)
            await catalog.begin_commit(receipt_of(path, data))
            for _ in range(STARTS):
                with contextlib.suppress(OSError):  # it does not start, and says so
                    await reconcile(root, catalog)
                assert await catalog.find_receipt(UPLOAD_ID) is None
            assert await catalog.uploads() == []
    finally:
        root.close()
