"""What a killed server may have left, state by state: made by hand here, as the kill would have."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from uringd.catalog import open_catalog
from uringd.reconcile import reconcile, settle_gone
from uringd.records import ReceiptRecord, UploadRecord
from uringd.root import Root
from uringd.wire import Durability, crc32c

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from uringd.catalog import Catalog

UPLOAD_ID = "0123456789abcdef" * 2
DATA = b"d" * 10_000

UPLOAD = UploadRecord(
    UPLOAD_ID, "a/file", None, overwrite=False, durability=Durability.DURABLE, resumable=True
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    opened = Root(tmp_path / "root")
    (opened.path / "a").mkdir()
    yield opened
    opened.close()


@pytest.fixture
async def catalog(root: Root) -> AsyncIterator[Catalog]:
    async with open_catalog(root.catalog_path) as opened:
        yield opened


def spooled(root: Root) -> Path:
    path = root.path / ".uringd/spool" / f"{UPLOAD_ID}.part"
    path.write_bytes(DATA)
    return path


def receipt_of(path: Path, durability: Durability = Durability.DURABLE) -> ReceiptRecord:
    return ReceiptRecord(
        UPLOAD_ID,
        "a/file",
        len(DATA),
        crc32c(DATA),
        durability,
        "io_uring",
        direct=True,
        transport="unix",
        seconds=0.5,
        instance_id=bytes(16),
        epoch=1,
        inode=path.stat().st_ino,
    )


async def ends(root: Root, catalog: Catalog) -> list[tuple[str, str]]:
    """Reconcile, and say what became of what."""
    with capture_logs() as events:
        await reconcile(root, catalog)
    return [(event["outcome"], event["reason"]) for event in events]


async def test_an_upload_that_nobody_can_come_back_for_is_removed(
    root: Root, catalog: Catalog
) -> None:
    await catalog.add(replace(UPLOAD, resumable=False))
    path = spooled(root)
    assert await ends(root, catalog) == [("removed", "its session ended with the server")]
    assert not path.exists()
    assert await catalog.uploads() == []


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_spool_file_that_the_killed_still_write_to_is_left_for_the_next_start(
    root: Root, catalog: Catalog, *, recorded: bool
) -> None:
    """Their writes may reach the disk seconds later, and the lock is held until the last."""
    if recorded:
        await catalog.add(replace(UPLOAD, resumable=False))
    path = spooled(root)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert await ends(root, catalog) == []
        assert path.exists()
        assert len(await catalog.uploads()) == recorded
    assert [outcome for outcome, _ in await ends(root, catalog)] == ["removed"]
    assert not path.exists()


async def test_a_commit_whose_file_is_nowhere_is_no_upload_any_more(
    root: Root, catalog: Catalog
) -> None:
    path = spooled(root)
    await catalog.add(UPLOAD)
    await catalog.begin_commit(receipt_of(path))
    path.unlink()
    assert await ends(root, catalog) == [("removed", "its spool file is gone")]
    assert await catalog.find_receipt(UPLOAD_ID) is None


async def test_what_another_process_has_settled_is_not_settled_again(
    root: Root, catalog: Catalog
) -> None:
    """Two workers may come across the same remainder: the one that is late takes the answer."""
    path = spooled(root)
    receipt = receipt_of(path)
    await catalog.add(UPLOAD)
    await catalog.begin_commit(receipt)
    stale = await catalog.find(UPLOAD_ID)
    assert stale is not None
    path.rename(root.path / "a/file")
    with capture_logs() as events:
        settled, ours = await settle_gone(root, catalog, stale)
        assert settled is not None
        assert (settled.durability, ours) == (Durability.PUBLISHED, True)
        assert await settle_gone(root, catalog, stale) == (settled, False)
        assert await settle_gone(root, catalog, UPLOAD) == (None, False), "none was ever added"
    assert [event["outcome"] for event in events] == ["published"]


async def test_a_receipt_whose_name_a_directory_took_is_lost_and_said(
    root: Root, catalog: Catalog
) -> None:
    """The rename was undone by a cut, and its name is not to be had again."""
    await catalog.publish(receipt_of(spooled(root)))
    (root.path / "a/file").mkdir()
    assert await ends(root, catalog) == [
        ("lost", "its name did not survive, as its level"),
        ("removed", "its spool file has no record"),
    ]
    assert os.listdir(root.path / "a") == ["file"]
    assert await catalog.find_receipt(UPLOAD_ID) is None


async def test_a_receipt_whose_directory_is_gone_is_lost(root: Root, catalog: Catalog) -> None:
    await catalog.publish(receipt_of(spooled(root)))
    (root.path / "a").rmdir()
    assert [outcome for outcome, _ in await ends(root, catalog)] == ["lost", "removed"]


async def test_what_is_published_again_is_durable_with_its_name(
    root: Root, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes before the rename, its directories behind it."""
    path = spooled(root)
    await catalog.publish(receipt_of(path, Durability.WRITTEN))
    done: list[object] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        done.append(os.fstat(fd).st_ino)
        fsync(fd)

    def renamed(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        done.append("rename")
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    assert [outcome for outcome, _ in await ends(root, catalog)] == ["published"]
    file, directory = (root.path / "a/file").stat().st_ino, (root.path / "a").stat().st_ino
    assert done == [file, "rename", directory, root.path.stat().st_ino]
