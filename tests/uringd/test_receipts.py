"""The catalog as a visitor reads it: beside its server, after its end, and after its kill."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringd import receipts as module
from uringd.catalog import CatalogError, open_catalog
from uringd.receipts import Receipts
from uringd.records import ReceiptRecord
from uringd.wire import Durability

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import RunPython
    from uringd.catalog import Catalog

# A writer that is gone from one moment to the next, with its log and its index left behind.
KILLED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("UPDATE receipts SET size = 77")
os._exit(0)
"""


def receipt(name: str, serial: int = 0) -> ReceiptRecord:
    return ReceiptRecord(
        upload_id=f"{name} {serial}",
        name=name,
        size=10 + serial,
        crc32c=serial,
        durability=Durability.PUBLISHED,
        backend="io_uring",
        direct=True,
        transport="unix",
        seconds=1.0,
        instance_id=bytes(16),
        epoch=1,
        inode=1000 + serial,
        modified_ns=5,
        published_ns=6,
    )


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that a write would change. Not beside a catalog that this process has open."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.iterdir()
    }


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / ".uringd"
    path.mkdir()
    return path / "catalog.sqlite3"


@pytest.fixture
async def catalog(database: Path) -> AsyncIterator[Catalog]:
    """A catalog that is being written."""
    async with open_catalog(database) as opened:
        yield opened


@pytest.fixture
def kept(database: Path) -> Path:
    """A catalog whose server has ended in order, with two receipts of one name."""

    async def serve() -> None:
        async with open_catalog(database) as catalog:
            await catalog.publish(receipt("a", 1))
            await catalog.publish(receipt("a", 2))

    trio.run(serve)
    assert os.listdir(database.parent) == ["catalog.sqlite3"]
    return database


async def test_the_newest_receipt_of_a_name_is_found_while_its_server_writes(
    catalog: Catalog, tmp_path: Path
) -> None:
    await catalog.publish(receipt("a", 1))
    reader = Receipts(tmp_path)
    assert reader.find("a") == (receipt("a", 1),)
    await catalog.publish(receipt("a", 2))
    await catalog.publish(receipt("b", 3))
    assert reader.find("a") == (receipt("a", 2),)
    assert reader.total() == (2, 12 + 13)
    assert list(reader.newest()) == [[receipt("a", 2), receipt("b", 3)]]
    assert reader.find("c") == ()


def test_after_an_orderly_end_the_database_alone_is_read_and_nothing_is_made(
    kept: Path, tmp_path: Path
) -> None:
    before = snapshot(kept.parent)
    assert Receipts(tmp_path).find("a") == (receipt("a", 2),)
    assert snapshot(kept.parent) == before


@pytest.mark.parametrize("index", ["whole", "empty", "garbage"])
def test_after_a_kill_the_log_is_read_and_nothing_is_changed(
    kept: Path, tmp_path: Path, run_python: RunPython, index: str
) -> None:
    """What is in the index counts for nothing: nobody is left who vouches for it."""
    run_python(KILLED, kept)
    shm = kept.with_name(kept.name + "-shm")
    if index != "whole":
        shm.write_bytes(b"" if index == "empty" else bytes(range(256)) * 128)
    before = snapshot(kept.parent)
    assert [record.size for record in Receipts(tmp_path).find("a")] == [77]
    assert snapshot(kept.parent) == before
    with sqlite3.connect(kept) as db:  # and a server can start after it
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_log_without_its_index_is_an_error_that_says_what_to_do(
    kept: Path, tmp_path: Path, run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_python(KILLED, kept)
    kept.with_name(kept.name + "-shm").unlink()
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0)
    with pytest.raises(CatalogError, match=f"start `uringd serve --root {tmp_path}`"):
        Receipts(tmp_path).find("a")


def test_an_answer_counts_only_if_no_server_came_in_between(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an index nothing keeps a writer away: what was read is asked for once more."""
    ask = Receipts._ask
    asked: list[str] = []

    def ask_and_write(self: Receipts, how: str, *args: Any) -> list[Any]:
        rows = ask(self, how, *args)
        if not asked:
            db = sqlite3.connect(kept)
            db.execute("UPDATE receipts SET size = 99")
            db.commit()
            db.close()
        asked.append(how)
        return rows

    monkeypatch.setattr(Receipts, "_ask", ask_and_write)
    assert [record.size for record in Receipts(tmp_path).find("a")] == [99]
    assert asked == ["immutable=1", "immutable=1"]


async def test_many_receipts_are_read_page_by_page(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_RECEIPTS", 2)
    for serial, name in enumerate("edcbaedcba"):
        await catalog.publish(receipt(name, serial))
    pages = list(Receipts(tmp_path).newest())
    assert [[record.name for record in page] for page in pages] == [["a", "b"], ["c", "d"], ["e"]]
    assert [record.size for page in pages for record in page] == [19, 18, 17, 16, 15]


async def test_a_commit_at_work_is_found_behind_the_receipt(
    catalog: Catalog, tmp_path: Path, database: Path
) -> None:
    await catalog.publish(receipt("a", 1))
    with sqlite3.connect(database) as db:
        db.execute(
            "INSERT INTO commits SELECT 'later', name, 99, crc32c, durability, backend, direct, "
            "transport, seconds, instance_id, epoch, inode, 0, 0 FROM receipts"
        )
    db.close()
    found = Receipts(tmp_path).find("a")
    assert [(record.size, record.published_ns) for record in found] == [(11, 6), (99, 0)]


def test_a_directory_that_was_never_served_is_told_as_such(tmp_path: Path) -> None:
    for path in [tmp_path, tmp_path / "nothing"]:
        with pytest.raises(CatalogError, match="was this directory served"):
            Receipts(path).find("a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("version", [0, 99])
def test_a_catalog_of_another_version_is_refused(kept: Path, tmp_path: Path, version: int) -> None:
    with sqlite3.connect(kept) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(CatalogError, match=f"version {version}"):
        Receipts(tmp_path).find("a")


def test_what_is_no_database_is_one_sentence(kept: Path, tmp_path: Path) -> None:
    kept.write_bytes(b"nonsense" * 1000)
    with pytest.raises(CatalogError, match="file is not a database"):
        Receipts(tmp_path).find("a")


def test_a_root_of_any_name_is_read(kept: Path, tmp_path: Path) -> None:
    """The path goes into a URI: what means something there is quoted."""
    other = tmp_path / os.fsdecode(b"100% ?mode=rw #\xe9")
    shutil.copytree(kept.parent, other / ".uringd")
    assert Receipts(other).find("a") == (receipt("a", 2),)


def test_a_name_that_is_no_text_is_not_known(kept: Path, tmp_path: Path) -> None:
    assert kept.exists()
    assert Receipts(tmp_path).find(os.fsdecode(b"caf\xe9")) == ()
