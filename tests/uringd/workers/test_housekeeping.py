"""What the supervisor does for all: uploads expire once, and what the dead left is removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from uringd.accounts import Accounts, Kind
from uringd.catalog import Catalog, open_catalog
from uringd.config import Settings
from uringd.records import UploadRecord
from uringd.root import Root
from uringd.wire import Durability
from uringd.workers.housekeeping import Housekeeping

HOUR_S = 3600.0


class House:
    """ROOT with uploads at rest, and its upkeep."""

    def __init__(self, root: Root, catalog: Catalog) -> None:
        self.root = root
        self.catalog = catalog
        self.accounts = Accounts()
        settings = Settings(root=root.path, listen=(), upload_expiry_s=HOUR_S)
        self.keeping = Housekeeping(root, catalog, self.accounts, settings)

    async def add(self, number: int, *, resumable: bool = True) -> str:
        """Record an upload and make its spool file; nobody holds it."""
        record = UploadRecord(f"{number:032x}", "x", 100, False, Durability.PUBLISHED, resumable)
        assert await self.catalog.add(record)
        self.spool(record.upload_id).touch()
        self.accounts.found(Kind.UPLOADS, 1)
        self.accounts.found(Kind.SPOOL_BYTES, record.spool_bytes)
        return record.upload_id

    def spool(self, upload_id: str) -> Path:
        return self.root.path / ".uringd" / "spool" / f"{upload_id}.part"

    def hold(self, upload_id: str) -> int:
        """Lock its spool file, as another process would."""
        fd = os.open(self.spool(upload_id), os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    async def ids(self) -> list[str]:
        return [record.upload_id for record in await self.catalog.uploads()]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    root = Root(tmp_path / "root")
    async with open_catalog(root.catalog_path) as catalog:
        yield House(root, catalog)
    root.close()


async def test_what_nobody_holds_expires_and_is_counted_out_once(house: House) -> None:
    old, held = await house.add(1), await house.add(2)
    lock = house.hold(held)
    await house.keeping.expire(HOUR_S / 2)
    assert await house.ids() == [old, held]
    await house.keeping.expire(HOUR_S / 2)
    await house.keeping.expire(HOUR_S)
    assert await house.ids() == [held]
    assert not house.spool(old).exists()
    assert house.spool(held).exists(), "the lock says that somebody has it"
    assert house.accounts.total(Kind.UPLOADS) == 1
    assert house.accounts.total(Kind.SPOOL_BYTES) == 100
    os.close(lock)


async def test_what_its_holder_says_is_held_does_not_grow_old(house: House) -> None:
    young = await house.add(1)
    await house.add(2)
    await house.keeping.expire(HOUR_S / 2)
    await house.catalog.age(0, [young])
    await house.keeping.expire(HOUR_S / 2)
    assert await house.ids() == [young]


async def test_what_a_dead_worker_left_is_removed_when_its_lock_is_free(house: House) -> None:
    resumable, session = await house.add(1), await house.add(2, resumable=False)
    orphan = f"{3:032x}"
    house.spool(orphan).touch()
    locks = [house.hold(session), house.hold(orphan)]
    assert not await house.keeping.tidy(), "writes of the dead may still come"
    assert await house.ids() == [resumable, session]
    assert house.spool(orphan).exists()
    for lock in locks:
        os.close(lock)
    assert await house.keeping.tidy()
    assert await house.ids() == [resumable]
    assert os.listdir(house.root.spool_fd) == [f"{resumable}.part"]
    assert house.accounts.total(Kind.UPLOADS) == 1


async def test_an_upload_that_is_being_committed_is_left_alone(house: House) -> None:
    """Its spool file has its name by then, and its record is its worker's to end."""
    committing = await house.add(1, resumable=False)
    house.spool(committing).unlink()
    assert await house.keeping.tidy()
    await house.keeping.expire(2 * HOUR_S)
    assert await house.ids() == [committing]


async def test_what_a_dead_workers_small_uploads_left_is_removed_and_a_living_ones_never(
    house: House,
) -> None:
    spool = house.root.path / ".uringd" / "spool"
    left, used, new = (spool / f"{name}.put" for name in ("left", "used", "new"))
    left.touch()
    used.touch()
    house.keeping.somebody_died()
    assert not await house.keeping.tidy()
    assert left.exists(), "its maker may be about to lock it"
    new.touch()
    fd = os.open(used, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert not await house.keeping.tidy()
    assert not left.exists()
    assert used.exists() and new.exists()
    os.close(fd)
    assert await house.keeping.tidy()
    assert not used.exists()
    assert new.exists(), "it was made after the death"
