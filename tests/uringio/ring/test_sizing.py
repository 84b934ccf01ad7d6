"""Slot size and depth from what the kernel tells of the device: the choice, and the asking."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uringio._ring.sizing import has_huge_pages, read_facts
from uringio.lowlevel import BufferPool, DeviceFacts, choose_sizes, suggest

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("facts", "huge_pages", "slots", "slot_bytes", "why"),
    [
        (None, True, 16, MIB, "no block device"),
        (DeviceFacts("vda", 4 * MIB, 254, 256, 512), True, 16, MIB, "by the default"),
        (DeviceFacts("nvme0n1", 128 * KIB, 33, 1023), True, 64, 128 * KIB, "biggest request"),
        (DeviceFacts("sda", 1280 * KIB, 168, 64), True, 16, MIB, "by the default"),
        (DeviceFacts("sda", 512 * KIB, 168, 64), True, 32, 512 * KIB, "biggest request"),
        (DeviceFacts("vda", 4 * MIB, 254, 256), False, 32, 512 * KIB, "without huge pages"),
        (DeviceFacts("mmcblk0", 512 * KIB, 128, 4), True, 4, 512 * KIB, "4 requests"),
        (DeviceFacts("odd", 4 * KIB, 1, 1), False, 2, 128 * KIB, "1 requests"),
        (DeviceFacts("md0", 192 * KIB, None, None), True, 64, 128 * KIB, "biggest request"),
        (DeviceFacts("bcache", None, None, None, 3 * MIB), True, 5, 3 * MIB, "direct I/O needs"),
        (DeviceFacts("silent"), True, 16, MIB, "by the default"),
    ],
)
def test_a_slot_is_one_request_and_the_queue_bounds_the_depth(
    facts: DeviceFacts | None, *, huge_pages: bool, slots: int, slot_bytes: int, why: str
) -> None:
    sizes = choose_sizes(facts, huge_pages=huge_pages)
    assert (sizes.slots, sizes.slot_bytes) == (slots, slot_bytes)
    assert why in sizes.reason
    BufferPool(sizes.slots, sizes.slot_bytes).close()


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A tree of symbolic links as sysfs has it, for the device of tmp_path."""
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    return tmp_path / "sys"


def make_queue(disk: Path, **numbers: object) -> None:
    (disk / "queue").mkdir(parents=True)
    for name, number in numbers.items():
        (disk / "queue" / name).write_text(f"{number}\n")


def link_device(sysfs: Path, target: Path) -> None:
    device = os.stat(sysfs).st_dev
    link = sysfs / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
    link.symlink_to(os.path.relpath(target, link.parent))


def test_a_disk_is_asked_itself(sysfs: Path, tmp_path: Path) -> None:
    disk = sysfs / "devices/vda"
    make_queue(disk, max_sectors_kb=1280, max_segments=254, nr_requests=256)
    link_device(sysfs, disk)
    facts = read_facts(str(tmp_path), sysfs)
    assert facts is not None
    assert facts.name == "vda"
    assert (facts.request_bytes, facts.segments, facts.requests) == (1280 * KIB, 254, 256)


def test_a_partition_is_asked_by_its_disk(sysfs: Path, tmp_path: Path) -> None:
    disk = sysfs / "devices/nvme0n1"
    make_queue(disk, max_sectors_kb=128, max_segments=33, nr_requests=1023)
    (disk / "nvme0n1p2").mkdir()
    (disk / "nvme0n1p2/partition").write_text("2\n")
    link_device(sysfs, disk / "nvme0n1p2")
    facts = read_facts(str(tmp_path), sysfs)
    assert facts is not None
    assert facts.name == "nvme0n1p2"
    assert (facts.request_bytes, facts.segments, facts.requests) == (128 * KIB, 33, 1023)


@pytest.mark.parametrize("text", ["", "many", "0"])
def test_what_is_not_said_is_not_known(sysfs: Path, tmp_path: Path, text: str) -> None:
    disk = sysfs / "devices/loop0"
    make_queue(disk, max_sectors_kb=text)
    link_device(sysfs, disk)
    facts = read_facts(str(tmp_path), sysfs)
    assert facts is not None
    assert (facts.request_bytes, facts.segments, facts.requests) == (None, None, None)


def test_a_file_system_without_a_device_is_not_known(sysfs: Path, tmp_path: Path) -> None:
    assert read_facts(str(tmp_path), sysfs) is None


def test_huge_pages_are_to_be_had_unless_switched_off(sysfs: Path) -> None:
    assert not has_huge_pages(sysfs)
    setting = sysfs / "kernel/mm/transparent_hugepage/enabled"
    setting.parent.mkdir(parents=True)
    for text, had in (("always [madvise] never", True), ("always madvise [never]", False)):
        setting.write_text(text)
        assert has_huge_pages(sysfs) == had


def test_memory_has_no_device(shared_memory: Path) -> None:
    assert "no block device" in suggest(shared_memory).reason


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 32)], indirect=True)
def test_a_loop_device_is_asked(file_system: Path) -> None:
    assert suggest(file_system).reason.startswith("loop")
    facts = read_facts(str(file_system))
    assert facts is not None
    assert facts.align_bytes is not None, "ext4 tells how direct I/O is aligned"


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        suggest(tmp_path / "nowhere")
