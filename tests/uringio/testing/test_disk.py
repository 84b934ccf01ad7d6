"""The simulated disk: what is durable survives, what is not may be lost, torn, or kept."""

from __future__ import annotations

import errno
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import uringio
from uringio.lowlevel import Opcode, Operation, operations, run_ring
from uringio.testing import Fault, SimulatedDisk, SimulatedRing

if TYPE_CHECKING:
    from collections.abc import Callable

CUTS = 60
README = Path(__file__).parents[3] / "README.md"

Bytes = bytes | None


@pytest.fixture
def disk(tmp_path: Path) -> SimulatedDisk:
    return SimulatedDisk(tmp_path / "disk", seed=1)


@pytest.fixture
def after(disk: SimulatedDisk, tmp_path: Path) -> Callable[[str], set[Bytes]]:
    """What a file may be after a power cut: its bytes, or None where it is gone."""
    numbers = itertools.count()

    def look(name: str) -> set[Bytes]:
        found: set[Bytes] = set()
        for _ in range(CUTS):
            path = disk.power_cut(tmp_path / f"after {next(numbers)}").directory / name
            found.add(path.read_bytes() if path.exists() else None)
        return found

    return look


def do(disk: SimulatedDisk, *chain: Operation) -> int:
    """Do operations; the result is the last one's."""
    result = 0
    for operation in chain:
        result = disk.perform(operation)
        assert result >= 0, os.strerror(-result)
    return result


def create(disk: SimulatedDisk, name: str, data: bytes = b"") -> int:
    """Make a file through the disk; the result is its descriptor."""
    path = str(disk.directory / name)
    fd = do(disk, operations.open_at(-100, path, os.O_RDWR | os.O_CREAT, 0o666))
    if data:
        do(disk, operations.write(fd, data, 0, len(data)))
    return fd


def directory(disk: SimulatedDisk, name: str = ".") -> int:
    return os.open(disk.directory / name, os.O_RDONLY | os.O_DIRECTORY)


def test_a_file_needs_an_fsync_and_its_name_another(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    fd, above = create(disk, "f", b"bytes"), directory(disk)
    assert after("f") == {None, b"", b"bytes", bytes(5)}
    do(disk, operations.fsync(above))
    assert after("f") == {b"", b"bytes", bytes(5)}
    do(disk, operations.fsync(fd, data_only=True))
    assert after("f") == {b"bytes"}
    os.close(fd)
    os.close(above)


def test_what_was_durable_before_is_there_whatever_is_written_since(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    fd = create(disk, "f", b"1" * 1024)
    disk.syncfs()
    do(disk, operations.write(fd, b"2" * 1024, 0, 1024))
    old, new = b"1" * 512, b"2" * 512
    assert after("f") == {old + old, old + new, new + old, new + new}
    os.close(fd)


def test_a_rename_without_its_directorys_fsync_may_be_undone(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    os.close(create(disk, "old", b"old"))
    os.close(create(disk, "new", b"new"))
    disk.syncfs()
    above = directory(disk)
    do(disk, operations.rename(above, "new", above, "old", replace=True))
    assert after("old") == {b"old", b"new"}
    assert after("new") == {None, b"new"}
    do(disk, operations.fsync(above))
    assert after("old") == {b"new"}
    assert after("new") == {None}
    refused = operations.rename(above, "old", above, "old", replace=False)
    assert disk.perform(refused) == -errno.EEXIST
    os.close(above)


def test_links_and_unlinks_are_names_too(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    os.close(create(disk, "f", b"f"))
    disk.syncfs()
    above = directory(disk)
    do(disk, operations.link(above, "f", above, "g"), operations.unlink(above, "f"))
    assert after("f") == after("g") == {None, b"f"}
    do(disk, operations.fsync(above))
    assert (after("f"), after("g")) == ({None}, {b"f"})
    os.close(above)


def test_what_is_below_a_directory_goes_with_it(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    above = directory(disk)
    do(disk, operations.make_directory(above, "sub", 0o700))
    fd, below = create(disk, "sub/f", b"f"), directory(disk, "sub")
    do(disk, operations.fsync(fd), operations.fsync(below))
    assert after("sub/f") == {None, b"f"}
    do(disk, operations.fsync(above))
    assert after("sub/f") == {b"f"}
    for opened in (fd, below, above):
        os.close(opened)


def test_a_reservation_is_zeros_and_a_cut_to_size_is_like_a_write(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    fd = create(disk, "f", b"ab")
    do(disk, operations.fallocate(fd, 0, 4))
    disk.syncfs()
    assert after("f") == {b"ab\0\0"}
    do(disk, operations.ftruncate(fd, 1))
    assert {b"a", b"ab\0\0"} <= after("f")
    do(disk, operations.fsync(fd))
    assert after("f") == {b"a"}
    os.close(fd)


def test_a_durable_write_needs_no_fsync(
    disk: SimulatedDisk, after: Callable[[str], set[Bytes]]
) -> None:
    fd = create(disk, "f")
    disk.syncfs()
    do(disk, operations.write(fd, b"now", 0, 3, flags=operations.RWF_DSYNC))
    assert after("f") == {b"now"}
    os.close(fd)


def test_a_failed_fsync_is_not_made_good_by_the_next(tmp_path: Path) -> None:
    found = set()
    for seed in range(CUTS):
        disk = SimulatedDisk(tmp_path / str(seed), seed)
        fd = create(disk, "f")
        disk.syncfs()
        faults = [Fault(Opcode.FSYNC, 1, result=-errno.EIO)]
        ring = SimulatedRing(seed, faults=faults, disk=disk)
        ring.prepare_chain([operations.write(fd, b"x", 0, 1), operations.fsync(fd)])
        ring.prepare_chain([operations.fsync(fd)] * 2)
        while ring.in_flight:
            ring.submit()
            ring.reap()
        assert ring.history[-1][1] == 0, "it says that all is well"
        path = disk.power_cut(tmp_path / f"{seed} after").directory / "f"
        found.add(path.read_bytes())
        ring.close()
        os.close(fd)
    assert b"x" in found
    assert b"" in found, "and it was not"


def test_a_kill_loses_nothing_and_makes_nothing_durable(
    disk: SimulatedDisk, tmp_path: Path
) -> None:
    os.close(create(disk, "f", b"1" * 4096))
    killed = disk.kill(tmp_path / "killed")
    assert (killed.directory / "f").read_bytes() == b"1" * 4096
    found = set()
    for number in range(CUTS):
        path = killed.power_cut(tmp_path / f"cut {number}").directory / "f"
        found.add(path.read_bytes() if path.exists() else None)
    assert {None, b"", b"1" * 4096} <= found


def test_a_disk_that_lost_power_goes_on(disk: SimulatedDisk, tmp_path: Path) -> None:
    fd = create(disk, "f", b"one")
    number = disk.inode(fd)
    disk.syncfs()
    os.close(fd)
    later = disk.power_cut(tmp_path / "later")
    fd = create(later, "f")
    assert later.inode(fd) == number, "the number stays"
    do(later, operations.write(fd, b"two", 0, 3))
    later.syncfs()
    os.close(fd)
    assert (later.power_cut(tmp_path / "last").directory / "f").read_bytes() == b"two"
    assert (disk.directory / "f").read_bytes() == b"one", "the first disk is as it was"


def test_a_file_that_was_removed_before_a_kill_may_be_back_after_a_power_cut(
    disk: SimulatedDisk, tmp_path: Path
) -> None:
    os.close(create(disk, "f", b"old"))
    disk.syncfs()
    os.unlink(disk.directory / "f")
    killed = disk.kill(tmp_path / "killed")
    found = set()
    for number in range(CUTS):
        path = killed.power_cut(tmp_path / f"cut {number}").directory / "f"
        found.add(path.read_bytes() if path.exists() else None)
    assert found == {None, b"old"}


def test_what_others_do_is_noticed(tmp_path: Path) -> None:
    disk = SimulatedDisk(tmp_path / "disk", kept=["database"])
    (disk.directory / "database").write_bytes(b"committed")
    (disk.directory / "plain").write_bytes(b"synced by hand")
    fd, above = os.open(disk.directory / "plain", os.O_RDWR), directory(disk)
    disk.fsync(fd)
    disk.fsync(above)
    os.close(fd)
    os.close(above)
    (disk.directory / "database").write_bytes(b"and again")
    for number in range(CUTS):
        cut = disk.power_cut(tmp_path / str(number)).directory
        assert (cut / "plain").read_bytes() == b"synced by hand"
        assert (cut / "database").read_bytes() == b"and again"


def test_what_is_there_at_the_start_is_durable(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "f").write_bytes(b"old")
    disk = SimulatedDisk(tmp_path / "disk")
    for number in range(CUTS):
        cut = disk.power_cut(tmp_path / str(number)).directory
        assert (cut / "f").read_bytes() == b"old"


def test_what_is_not_on_the_disk_is_none_of_its_business(
    disk: SimulatedDisk, tmp_path: Path
) -> None:
    elsewhere = os.open(tmp_path / "elsewhere", os.O_RDWR | os.O_CREAT)
    do(disk, operations.write(elsewhere, b"x", 0, 1), operations.fsync(elsewhere))
    with pytest.raises(OSError, match="not on the disk"):
        disk.inode(elsewhere)
    os.close(elsewhere)
    assert disk.perform(operations.fsync(elsewhere)) == -errno.EBADF
    with pytest.raises(ValueError, match="is not empty"):
        disk.power_cut(tmp_path)


async def test_the_examples_of_docstring_and_readme_hold(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    [example] = [e for e in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "power_cut" in e]
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    await names["test_a_saved_file_survives_a_power_cut"](tmp_path)  # type: ignore[operator]
    doc = SimulatedDisk.__doc__
    assert doc is not None
    assert "disk.power_cut(tmp_path / " in doc
    assert "SimulatedRing(7, disk=disk)" in doc


@pytest.mark.parametrize("forgets", ["nothing", "fsync"])
async def test_it_tells_a_good_publish_from_a_bad_one(tmp_path: Path, forgets: str) -> None:
    found = set()
    for seed in range(20):
        disk = SimulatedDisk(tmp_path / str(seed), seed)

        def perform(operation: Operation, disk: SimulatedDisk = disk) -> int:
            if forgets == "fsync" and operation.opcode is Opcode.FSYNC:
                return 0
            return disk.perform(operation)

        ring = SimulatedRing(seed, disk=disk, perform=perform)
        async with run_ring(ring, 2, 4096) as opened:
            async with opened.create(disk.directory / "f", 10_000) as writer:
                await writer.write(b"x" * 10_000)
                assert isinstance(await writer.commit(), uringio.Receipt)
            path = disk.power_cut(tmp_path / f"{seed} after").directory / "f"
        found.add(path.read_bytes() if path.exists() else None)
    assert (found == {b"x" * 10_000}) == (forgets == "nothing")
