"""What a disk has of one file's bytes."""

from __future__ import annotations

import random

from uringio.testing.content import SECTOR_BYTES, Content


def whole(content: Content) -> bytes:
    data = bytearray(content.size)
    for offset, piece in content.pieces():
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def survivors(content: Content, count: int = 200) -> set[bytes]:
    """What may be left after a power cut."""
    found = set()
    for seed in range(count):
        copy = content.copy()
        copy.settle(random.Random(seed))
        found.add(whole(copy))
    return found


def synced(data: bytes) -> Content:
    content = Content()
    content.write(0, data)
    content.sync()
    return content


def test_what_was_synced_is_all_that_survives() -> None:
    assert survivors(synced(b"x" * 1300)) == {b"x" * 1300}


def test_what_was_not_synced_survives_whole_in_part_or_not_at_all() -> None:
    content = Content()
    content.write(0, b"ab" * SECTOR_BYTES)
    found = survivors(content)
    assert {b"", b"ab" * SECTOR_BYTES} < found
    first, zeros = b"ab" * (SECTOR_BYTES // 2), bytes(SECTOR_BYTES)
    assert {first + zeros, zeros + first, zeros + zeros} <= found, "torn at the sector, size apart"
    assert len(found) == 5, "and nowhere else"


def test_a_sector_is_as_one_of_the_writes_has_left_it() -> None:
    content = synced(b"1" * SECTOR_BYTES)
    for number in b"234":
        content.write(0, bytes([number]) * SECTOR_BYTES)
    assert survivors(content) == {bytes([n]) * SECTOR_BYTES for n in b"1234"}


def test_a_part_of_a_sector_keeps_the_rest_of_it() -> None:
    content = synced(b"1" * SECTOR_BYTES)
    content.write(100, b"2")
    content.sync()
    assert whole(content) == b"1" * 100 + b"2" + b"1" * (SECTOR_BYTES - 101)


def test_what_was_cut_off_reads_as_zeros_when_the_file_grows_again() -> None:
    content = synced(b"1" * 1000)
    content.resize(100)
    content.grow(1000)
    content.sync()
    assert whole(content) == b"1" * 100 + bytes(900)


def test_a_cut_that_was_not_synced_may_be_undone() -> None:
    content = synced(b"1" * 1000)
    content.resize(0)
    assert {b"", b"1" * 1000} <= survivors(content)


def test_a_durable_write_brings_its_own_range_and_the_size() -> None:
    content = Content()
    content.write(0, b"1" * SECTOR_BYTES)
    content.write(SECTOR_BYTES, b"2" * SECTOR_BYTES)
    content.sync_range(SECTOR_BYTES, SECTOR_BYTES)
    last = b"2" * SECTOR_BYTES
    assert survivors(content) == {bytes(SECTOR_BYTES) + last, b"1" * SECTOR_BYTES + last}


def test_a_copy_is_its_own() -> None:
    content = Content()
    content.write(0, b"1")
    copy = content.copy()
    copy.write(0, b"2")
    content.sync()
    copy.sync()
    assert (whole(content), whole(copy)) == (b"1", b"2")


def test_a_failed_fsync_loses_bytes_and_growth_and_no_cut() -> None:
    content = synced(b"1" * 1000)
    content.write(0, b"2" * 1500)
    content.resize(1200)
    found = set()
    for seed in range(200):
        copy = content.copy()
        copy.lose(random.Random(seed))
        copy.grow(2000)
        copy.sync()
        found.add(whole(copy))
    assert {data[1200:] for data in found} == {bytes(800)}, "what was cut off is gone"
    assert {data[:512] for data in found} == {b"1" * 512, b"2" * 512}
