"""The catalog: what it keeps, and what it costs to ask for it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from uringd.catalog import Catalog, CatalogError, open_catalog
from uringd.catalog_schema import MIGRATIONS, ROOM_BYTES, migrate
from uringd.records import ReceiptRecord, UploadRecord
from uringd.wire import ByteRange, Durability

RECEIPT = ReceiptRecord(
    "aa" * 16,
    "a/file",
    77,
    0xFFFFFFFF,
    Durability.PUBLISHED,
    "io_uring",
    direct=True,
    transport="tcp",
    seconds=0.5,
    instance_id=bytes(16),
    epoch=3,
    inode=-(1 << 63),
    modified_ns=1,
    published_ns=2,
)


def upload(upload_id: str = "aa" * 16, name: str = "a/file", size: int | None = 77) -> UploadRecord:
    return UploadRecord(
        upload_id, name, size, overwrite=False, durability=Durability.DURABLE, resumable=True
    )


async def ask(catalog: Catalog, sql: str) -> object:
    """Return the one value that a statement gives."""
    return await catalog._run(lambda db: db.execute(sql).fetchone()[0])


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with open_catalog(tmp_path / "catalog.sqlite3") as opened:
        yield opened


async def test_what_is_recorded_is_found_in_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    ranges = (ByteRange(0, 4096, 1), ByteRange(1 << 62, 8, 0xFFFFFFFF))
    async with open_catalog(path) as catalog:
        await catalog.add(upload())
        await catalog.record_progress("aa" * 16, 5, ranges)
        await catalog.add(upload("bb" * 16, "ä", None))
    async with open_catalog(path) as catalog:
        found = await catalog.find("aa" * 16)
        assert found is not None
        assert (found.epoch, found.ranges, found.size) == (5, ranges, 77)
        assert found.spool_bytes == (1 << 62) + 8
        assert [record.name for record in await catalog.uploads()] == ["a/file", "ä"]


async def test_a_commit_at_work_is_found_and_withdrawn(catalog: Catalog) -> None:
    await catalog.add(upload())
    await catalog.begin_commit(RECEIPT)
    found = await catalog.find(RECEIPT.upload_id)
    assert found is not None and found.committing == RECEIPT
    await catalog.withdraw_commit(RECEIPT.upload_id)
    found = await catalog.find(RECEIPT.upload_id)
    assert found is not None and found.committing is None


async def test_a_receipt_takes_the_place_of_the_upload(catalog: Catalog) -> None:
    await catalog.add(upload())
    await catalog.record_progress("aa" * 16, 1, [ByteRange(0, 77, 1)])
    await catalog.begin_commit(RECEIPT)
    await catalog.publish(RECEIPT)
    assert await catalog.find("aa" * 16) is None
    assert await catalog.find_receipt("aa" * 16) == RECEIPT
    for table in ("uploads", "ranges", "commits"):
        assert await ask(catalog, f"SELECT count(*) FROM {table}") == 0


async def test_an_id_is_added_once_published_or_not(catalog: Catalog) -> None:
    assert await catalog.add(upload())
    await catalog.record_progress("aa" * 16, 1, [ByteRange(0, 77, 1)])
    assert not await catalog.add(upload())
    found = await catalog.find("aa" * 16)
    assert found is not None and found.ranges, "it stays as it was"
    await catalog.publish(RECEIPT)
    assert not await catalog.add(upload())
    assert await catalog.uploads() == []


async def test_a_request_that_fails_costs_the_others_of_its_batch_nothing(
    catalog: Catalog,
) -> None:
    outcomes: list[str] = []

    async def add(upload_id: str) -> None:
        try:
            await catalog.add(upload(upload_id))
            outcomes.append("added")
        except CatalogError as exc:
            outcomes.append(str(exc))

    async def record() -> None:
        with pytest.raises(CatalogError, match="FOREIGN KEY"):
            await catalog.record_progress("dd" * 16, 1, [ByteRange(0, 77, 1)])
        outcomes.append("FOREIGN KEY")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(record)
        for upload_id in ["aa" * 16, "bb" * 16, "cc" * 16]:
            nursery.start_soon(add, upload_id)
    assert sorted(outcomes) == ["FOREIGN KEY", "added", "added", "added"]
    assert len(await catalog.uploads()) == 3


async def test_many_requests_are_few_transactions(catalog: Catalog) -> None:
    statements: list[str] = []
    catalog._connection.set_trace_callback(statements.append)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(catalog.add, upload(f"{number:032x}"))
    commits = [statement for statement in statements if statement == "COMMIT"]
    assert len(await catalog.uploads()) == 100
    assert len(commits) <= 3


async def test_a_cancelled_request_is_done_all_the_same(catalog: Catalog) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await catalog.add(upload())
    assert await catalog.find("aa" * 16) is not None


async def test_a_catalog_that_is_left_answers_nobody_any_more(tmp_path: Path) -> None:
    async with open_catalog(tmp_path / "catalog.sqlite3") as catalog:
        pass
    with pytest.raises(CatalogError, match="closed"):
        await catalog.add(upload())


async def test_uploads_are_listed_in_pages_by_prefix(catalog: Catalog) -> None:
    for number in range(6):
        await catalog.add(upload(f"{number:032x}", f"{'ab'[number % 2]}%_/{number}"))
    page = await catalog.uploads("a%", f"{0:032x}", 2)
    assert [record.name for record in page] == ["a%_/2", "a%_/4"]


async def test_uploads_grow_old_only_while_nobody_holds_them(catalog: Catalog) -> None:
    for upload_id in ("aa" * 16, "bb" * 16):
        await catalog.add(upload(upload_id))
    await catalog.age(60, ["aa" * 16])
    await catalog.age(60, ["aa" * 16])
    assert await catalog.expired(120) == ["bb" * 16]
    await catalog.age(60, ["bb" * 16])
    assert await catalog.expired(60) == ["aa" * 16]


async def test_receipts_of_files_that_are_there_are_not_pruned(catalog: Catalog) -> None:
    older = replace(RECEIPT, upload_id="bb" * 16, durability=Durability.WRITTEN)
    await catalog.publish(older)
    assert await catalog.weak_receipts() == [older]
    await catalog.publish(RECEIPT)
    assert await catalog.weak_receipts() == [], "the name is another upload's by now"
    assert await catalog.prune_receipts(before_ns=1) == 0
    assert await catalog.prune_receipts(before_ns=100) == 1
    assert await catalog.find_receipt("bb" * 16) is None
    assert await catalog.find_receipt("aa" * 16) == RECEIPT


def test_a_migration_that_fails_leaves_the_catalog_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.sqlite3"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db)
    db.close()
    bad = (*MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE uploads (x);")
    monkeypatch.setattr("uringd.catalog_schema.MIGRATIONS", bad)
    with sqlite3.connect(path, isolation_level=None) as db, pytest.raises(sqlite3.Error):
        migrate(db)
    db.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (
            0,
        )
    db.close()


async def test_a_catalog_keeps_what_it_commits(catalog: Catalog) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys")
    settings = [await ask(catalog, f"PRAGMA {name}") for name in names]
    assert settings == ["wal", 2, 1]


async def test_a_catalog_has_room_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    async with open_catalog(path):
        assert path.stat().st_size >= ROOM_BYTES
        assert os.path.getsize(f"{path}-wal") >= ROOM_BYTES


@pytest.mark.root
async def test_records_are_made_while_the_disk_is_full(small_disk: Path) -> None:
    async with open_catalog(small_disk / "catalog.sqlite3") as catalog:
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            with pytest.raises(OSError, match="No space left"):
                while True:
                    filler.write(bytes(1 << 20))
            with pytest.raises(OSError, match="No space left"):
                while True:
                    filler.write(bytes(4096))
        for number in range(500):
            await catalog.add(upload(f"{number:032x}"))
            await catalog.record_progress(f"{number:032x}", 1, [ByteRange(0, 77, 1)])
            if number % 2:
                await catalog.remove(f"{number:032x}")
        assert len(await catalog.uploads()) == 250


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + bytes(5000)])
async def test_a_file_that_is_no_catalog_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "catalog.sqlite3").write_bytes(content)
    with pytest.raises(CatalogError, match=r"cannot use the catalog catalog.sqlite3: "):
        async with open_catalog(tmp_path / "catalog.sqlite3"):
            pass


async def test_a_list_reads_two_ranges_of_each_upload(catalog: Catalog) -> None:
    await catalog.add(upload())
    ranges = [ByteRange(at * 8192, 4096, at) for at in range(5)]
    await catalog.record_progress("aa" * 16, 1, ranges)
    [listed] = await catalog.uploads()
    assert listed.ranges == (ranges[0], ranges[-1])
    found = await catalog.find("aa" * 16)
    assert found is not None and list(found.ranges) == ranges
    assert listed.spool_bytes == found.spool_bytes


async def test_many_receipts_are_recorded_at_once_or_none(catalog: Catalog) -> None:
    receipts = [replace(RECEIPT, upload_id=f"{n:032x}", name=f"f{n}") for n in range(300)]
    await catalog.publish_many(receipts)
    assert await catalog.find_receipt(f"{299:032x}") == receipts[299]
    twice = [replace(RECEIPT, upload_id="cc" * 16), receipts[0]]
    with pytest.raises(CatalogError):
        await catalog.publish_many(twice)
    assert await catalog.find_receipt("cc" * 16) is None


async def test_an_error_that_has_no_sqlite_name_is_told_as_what_it_is(catalog: Catalog) -> None:
    def work(_db: sqlite3.Connection) -> None:
        raise sqlite3.ProgrammingError("Python's own module says so")

    with pytest.raises(CatalogError, match="Python's own module says so"):
        await catalog._run(work)


async def test_what_sqlite_rolls_back_by_itself_is_told_as_what_it_was(catalog: Catalog) -> None:
    """A full disk ends the whole transaction: there is no savepoint to go back to, then."""

    def fill(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    with pytest.raises(CatalogError, match="disk is full") as caught:
        await catalog._run(fill)
    assert caught.value.errno == errno.ENOSPC
    assert await catalog.uploads() == [], "it goes on"


async def test_a_record_waits_for_one_list_at_the_most_however_many_ask(catalog: Catalog) -> None:
    await catalog.add(upload())
    lists = 0

    async def list_all() -> None:
        nonlocal lists
        assert len(await catalog.uploads()) == 1
        lists += 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(list_all)
        await trio.testing.wait_all_tasks_blocked()
        done = lists
        await catalog.begin_commit(RECEIPT)
        assert lists <= done + 2, "one that was at work, and one before the record's turn"
    assert lists == 50


async def test_another_process_of_a_server_makes_no_room_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    async with open_catalog(path, first=False) as catalog:
        assert await catalog.add(upload())
        assert path.stat().st_size < ROOM_BYTES


def test_a_catalog_that_another_process_writes_to_is_not_migrated_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog.sqlite3"
    monkeypatch.setattr("uringd.catalog_schema.BUSY_TIMEOUT_MS", 1)
    db, other = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
    migrate(db)
    more = (*MIGRATIONS, "CREATE TABLE more (x);")
    monkeypatch.setattr("uringd.catalog_schema.MIGRATIONS", more)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        migrate(db)
    assert not db.in_transaction
    other.execute("ROLLBACK")
    migrate(db)
    assert db.execute("PRAGMA user_version").fetchone() == (len(more),)
    db.close()
    other.close()


async def test_what_is_held_is_new_again_without_others_growing_older(catalog: Catalog) -> None:
    for upload_id in ("aa" * 16, "bb" * 16):
        await catalog.add(upload(upload_id))
    await catalog.age(60, [])
    await catalog.age(0, ["aa" * 16])
    assert await catalog.expired(60) == ["bb" * 16]
    assert await catalog.expired(61) == []


async def test_who_asks_while_the_catalog_is_being_left_is_told() -> None:
    connection = sqlite3.connect(":memory:")
    catalog, scope = Catalog(connection), trio.CancelScope()

    async def serve() -> None:
        with scope:
            await catalog.serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with pytest.raises(CatalogError, match="closed"):
            await catalog.add(upload())
    connection.close()
