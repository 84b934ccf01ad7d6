"""Published files against their receipts: what is told of each kind of harm, and of none."""

from __future__ import annotations

import errno
import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import trio

from tests.uringd.conftest import SLOT_BYTES
from uringd.client import connect
from uringd.receipts import Receipts
from uringd.root import DIRECTORY_FLAGS
from uringd.verifying import Finding, Outcome, Verifier
from uringd.wire import crc32c
from uringio import open_ring
from uringio._ring.execute import execute
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import Serving
    from uringio.lowlevel import Operation, RingLike

Content = Callable[[int], bytes]

SLOTS = 4
SIZES = [0, 1, 4096, 4097, SLOT_BYTES, 3 * SLOT_BYTES - 1, 11 * SLOT_BYTES + 4097]
SIZE = 5 * SLOT_BYTES + 13


class Publish(Protocol):
    async def __call__(self, *files: tuple[str, bytes]) -> Path: ...


@pytest.fixture
def publish(serving: Serving, tmp_path: Path) -> Publish:
    """Upload files to a server, one after the other, and end it; the result is ROOT."""

    async def run(*files: tuple[str, bytes]) -> Path:
        async with serving() as daemon, connect(daemon.unix) as client:
            for name, data in files:
                async with client.upload(name, len(data), overwrite=True) as upload:
                    await upload.write(data)
                    await upload.commit()
        return tmp_path / "root"

    return run


async def verify(root: Path, *names: str, ring: RingLike | None = None) -> list[Finding]:
    """Verify names; the ring has all its slots back, and every byte was counted."""
    receipts = Receipts(root)
    found: list[Finding] = []
    counted: list[int] = []
    fd = os.open(root, DIRECTORY_FLAGS)
    try:
        opening = run_ring(ring, SLOTS, SLOT_BYTES) if ring else open_ring(SLOTS, SLOT_BYTES)
        async with opening as opened:
            verifier = Verifier(opened, fd, receipts, counted.append)
            page = [(name, receipts.find(name)) for name in names]
            await verifier.verify_many([page], found.append)
            assert opened.statistics().free_slots == SLOTS
    finally:
        os.close(fd)
    assert sum(counted) == sum(records[0].size for _, records in page if records)
    return sorted(found, key=lambda finding: names.index(finding.name))


def harm(path: Path, do: Callable[[Path], object], *, unseen: bool) -> None:
    """Do something to a file; `unseen` as a disk does it: its times know nothing of it."""
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))  # else it may be the same
    do(path)
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(offset: int) -> Callable[[Path], object]:
    def run(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            [byte] = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    return run


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_is_ok(publish: Publish, content: Content, size: int) -> None:
    root = await publish(("a/file", content(size)))
    crc = crc32c(content(size))
    assert await verify(root, "a/file") == [
        Finding("a/file", Outcome.OK, size, crc, size, crc, direct=True)
    ]


@pytest.mark.parametrize("offset", [0, 2 * SLOT_BYTES + 77, SIZE - 1])
async def test_one_bit_is_found_and_who_changed_it(
    publish: Publish, content: Content, offset: int
) -> None:
    root = await publish(("disk", content(SIZE)), ("hand", content(SIZE)), ("good", b"good"))
    harm(root / "disk", flip(offset), unseen=True)
    harm(root / "hand", flip(offset), unseen=False)
    disk, hand, good = await verify(root, "disk", "hand", "good")
    assert (disk.outcome, hand.outcome) == (Outcome.CORRUPT, Outcome.CHANGED)
    assert good.outcome is Outcome.OK
    for finding in [disk, hand]:
        assert (finding.size, finding.crc32c) == (SIZE, crc32c(content(SIZE)))
        assert (finding.found_size, finding.direct) == (SIZE, True)
        assert finding.found_crc32c == crc32c((root / "disk").read_bytes())
        assert f"{finding.found_crc32c:08x}" in finding.reason


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1, 2 * SIZE])
async def test_a_file_of_another_length_is_told_with_both(
    publish: Publish, content: Content, size: int
) -> None:
    root = await publish(("disk", content(SIZE)), ("hand", content(SIZE)))
    harm(root / "disk", lambda path: os.truncate(path, size), unseen=True)
    harm(root / "hand", lambda path: os.truncate(path, size), unseen=False)
    disk, hand = await verify(root, "disk", "hand")
    assert (disk.outcome, hand.outcome) == (Outcome.CORRUPT, Outcome.CHANGED)
    assert (disk.size, disk.found_size) == (SIZE, size)
    assert f"{size} bytes" in disk.reason and f"{SIZE} were" in disk.reason


async def test_a_name_that_was_overwritten_is_held_against_its_newest_receipt(
    publish: Publish, content: Content
) -> None:
    root = await publish(("file", content(SIZE)), ("file", content(77)))
    [finding] = await verify(root, "file")
    assert (finding.outcome, finding.size) == (Outcome.OK, 77)
    (root / "file").unlink()
    (root / "file").write_bytes(content(SIZE))
    [finding] = await verify(root, "file")
    assert finding.outcome is Outcome.CHANGED, "the older version is not what was published last"


async def test_the_same_bytes_in_another_file_are_ok(publish: Publish, content: Content) -> None:
    root = await publish(("file", content(SIZE)))
    (root / "copy").write_bytes(content(SIZE))
    (root / "copy").rename(root / "file")
    [finding] = await verify(root, "file")
    assert finding.outcome is Outcome.OK


async def test_what_is_not_there_is_missing_and_what_never_was_is_unknown(
    publish: Publish, tmp_path: Path
) -> None:
    root = await publish(("gone", b"1"), ("a/b/gone", b"2"), ("d/gone", b"3"))
    (tmp_path / "outside").write_bytes(b"4")
    (root / "gone").unlink()
    (root / "a/b/gone").unlink()
    (root / "a/b").rmdir()
    (root / "d/gone").unlink()
    (root / "d").rmdir()
    (root / "d").write_bytes(b"a file where the directory was")
    names = ["gone", "a/b/gone", "d/gone"]
    assert {finding.outcome for finding in await verify(root, *names)} == {Outcome.MISSING}
    names = ["d", "never", "../outside", ".uringd/lock", "", os.fsdecode(b"caf\xe9")]
    assert {finding.outcome for finding in await verify(root, *names)} == {Outcome.UNKNOWN}


@pytest.mark.parametrize("ring", [None, SimulatedRing], ids=["real", "blocking calls"])
async def test_what_stands_in_a_files_place_is_not_followed_and_not_waited_for(
    publish: Publish, content: Content, tmp_path: Path, ring: type[SimulatedRing] | None
) -> None:
    """The links lead to the very bytes: reading them would find nothing wrong."""
    names = ["link", "a/link", "directory", "pipe"]
    root = await publish(*((name, content(SIZE)) for name in names))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/link").write_bytes(content(SIZE))
    for name in names:
        (root / name).unlink()
    (root / "link").symlink_to(tmp_path / "outside/link")
    (root / "a").rmdir()
    (root / "a").symlink_to(tmp_path / "outside")
    (root / "directory").mkdir()
    os.mkfifo(root / "pipe")
    findings = await verify(root, *names, ring=ring(0) if ring else None)
    assert [finding.outcome for finding in findings] == [Outcome.CHANGED] * 4
    assert ["symbolic link" in finding.reason for finding in findings] == [True] * 2 + [False] * 2
    assert [finding.found_crc32c for finding in findings] == [None] * 4


@pytest.mark.parametrize("seed", range(3))
async def test_an_error_of_the_disk_is_told_with_its_lowest_offset(
    publish: Publish, content: Content, seed: int
) -> None:
    root = await publish(("bad", content(SIZE)))
    ring = SimulatedRing(
        seed, faults=[Fault(Opcode.READ, nth=nth, result=-errno.EIO) for nth in (2, 3)]
    )
    [bad] = await verify(root, "bad", ring=ring)
    failed = [operation.offset for operation, result in ring.history if result == -errno.EIO]
    assert bad.outcome is Outcome.UNREADABLE
    assert bad.offset == min(failed)
    assert "EIO" in bad.reason and f"offset {bad.offset}" in bad.reason


async def test_a_file_that_may_not_be_opened_is_unreadable(publish: Publish) -> None:
    root = await publish(("file", b"data"))
    ring = SimulatedRing(0, faults=[Fault(Opcode.OPENAT2, result=-errno.EACCES)])
    [finding] = await verify(root, "file", ring=ring)
    assert finding.outcome is Outcome.UNREADABLE and "EACCES" in finding.reason


async def test_short_reads_go_on_where_they_stopped(publish: Publish, content: Content) -> None:
    root = await publish(("file", content(SIZE)))
    ring = SimulatedRing(0, faults=[Fault(Opcode.READ, short=4096, every=True)])
    [finding] = await verify(root, "file", ring=ring)
    assert (finding.outcome, finding.direct) == (Outcome.OK, True)


async def test_beside_a_server_a_record_that_is_out_of_date_accuses_nobody(
    serving: Serving, content: Content
) -> None:
    async with serving() as daemon, connect(daemon.unix) as client:
        receipts = Receipts(daemon.root)
        fd = os.open(daemon.root, DIRECTORY_FLAGS)
        async with open_ring(SLOTS, SLOT_BYTES) as ring:
            verifier = Verifier(ring, fd, receipts, lambda _: None)
            for length in [SIZE, SIZE - 1]:
                stale = receipts.find("file")
                async with client.upload("file", overwrite=True) as upload:
                    await upload.write(content(length))
                    await upload.commit()
                finding = await verifier.verify("file", stale)
                assert (finding.outcome, finding.size) == (Outcome.OK, length)
            (daemon.root / "file").unlink()
            finding = await verifier.verify("file", stale)
            assert finding.outcome is Outcome.MISSING
        os.close(fd)


def cut_off_commit(root: Path, upload: str) -> None:
    """Make the newest receipt of a name the record of a commit that was renamed, and no more."""
    db = sqlite3.connect(root / ".uringd/catalog.sqlite3")
    with db:
        db.execute(
            "INSERT INTO commits SELECT upload_id, name, size, crc32c, durability, backend, "
            "direct, transport, seconds, instance_id, epoch, inode, 0, 0 FROM receipts "
            "WHERE name = ? ORDER BY serial DESC LIMIT 1",
            (upload,),
        )
        db.execute("DELETE FROM receipts WHERE upload_id IN (SELECT upload_id FROM commits)")
    db.close()


async def test_a_file_whose_receipt_was_not_recorded_yet_is_held_against_its_commit(
    publish: Publish, content: Content
) -> None:
    root = await publish(("file", content(77)), ("file", content(SIZE)), ("new", content(9)))
    cut_off_commit(root, "file")
    cut_off_commit(root, "new")
    file, new = await verify(root, "file", "new")
    assert [file.outcome, new.outcome] == [Outcome.OK] * 2
    assert (file.size, new.size) == (SIZE, 9)
    harm(root / "file", flip(5), unseen=True)
    [file] = await verify(root, "file")
    assert file.outcome is Outcome.CORRUPT


async def test_a_commit_that_has_not_renamed_its_file_changes_nothing(
    publish: Publish, content: Content
) -> None:
    root = await publish(("file", content(77)), ("file", content(SIZE)), ("new", content(9)))
    cut_off_commit(root, "file")
    cut_off_commit(root, "new")
    for name, length in [("file", 77), ("new", 9)]:
        (root / f"{name}~").write_bytes(content(length))
        (root / f"{name}~").rename(root / name)
    file, new = await verify(root, "file", "new")
    assert (file.outcome, file.size, new.outcome) == (Outcome.OK, 77, Outcome.UNKNOWN)
    (root / "new").unlink()
    [new] = await verify(root, "new")
    assert new.outcome is Outcome.UNKNOWN


async def test_what_is_read_through_the_page_cache_says_so(
    serving: Serving, content: Content, shared_memory: Path
) -> None:
    async with serving(root=shared_memory / "root") as daemon, connect(daemon.unix) as client:
        async with client.upload("file") as upload:
            await upload.write(content(SIZE))
            await upload.commit()
        [finding] = await verify(daemon.root, "file")
        assert (finding.outcome, finding.direct) == (Outcome.OK, False)


@pytest.mark.parametrize("length", [SLOT_BYTES, SIZE + 9])
async def test_a_file_that_gets_another_length_under_the_reader_is_changed(
    publish: Publish, content: Content, length: int
) -> None:
    root = await publish(("file", content(SIZE)))
    cuts = [functools.partial(os.truncate, root / "file", length)]

    def perform(operation: Operation) -> int:
        if operation.opcode is Opcode.READ and cuts:
            cuts.pop()()
        return execute(operation)

    [finding] = await verify(root, "file", ring=SimulatedRing(0, perform=perform))
    assert (finding.outcome, finding.found_size) == (Outcome.CHANGED, length)


async def test_a_cancelled_verify_leaves_no_slot_and_no_descriptor_behind(
    publish: Publish, content: Content, count_descriptors: Callable[[], int]
) -> None:
    root = await publish(("file", content(SIZE)))
    fd = os.open(root, DIRECTORY_FLAGS)
    receipts = Receipts(root)
    async with open_ring(SLOTS, SLOT_BYTES) as ring:
        before = count_descriptors()
        with trio.CancelScope() as scope:
            verifier = Verifier(ring, fd, receipts, lambda _: scope.cancel())
            await verifier.verify_many([[("file", receipts.find("file"))]], lambda _: None)
        assert scope.cancelled_caught
        assert ring.statistics().free_slots == SLOTS
        assert count_descriptors() == before
    os.close(fd)
