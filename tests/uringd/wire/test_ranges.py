import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.wire.checksum import crc32c
from uringd.wire.codes import ErrorCode
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError
from uringd.wire.ranges import ByteRange, Verdict, WrittenRanges

CONTENT = bytes(range(256)) * 2
chunks = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=40)


def add(ranges: WrittenRanges, offset: int, length: int) -> None:
    ranges.add(offset, length, crc32c(CONTENT[offset : offset + length]))


def runs(present: set[int], end: int) -> list[tuple[int, int]]:
    """Return what is in the set below end, as (offset, length)."""
    found: list[tuple[int, int]] = []
    for byte in range(end):
        if byte not in present:
            continue
        if found and sum(found[-1]) == byte:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((byte, 1))
    return found


def test_nothing_is_there_at_first() -> None:
    ranges = WrittenRanges()
    assert (len(ranges), ranges.prefix, ranges.end) == (0, 0, 0)
    assert ranges.missing(10) == [(0, 10)] and ranges.missing(0) == []
    assert ranges.crc32c(0) == 0
    assert ranges.covers(5, 0) and not ranges.overlaps(0, 10)


@given(chunks)
def test_it_is_a_set_of_bytes_with_a_checksum(pieces: list[tuple[int, int]]) -> None:
    ranges, present = WrittenRanges(), set[int]()
    for offset, length in pieces:
        bytes_of_it = set(range(offset, offset + length))
        assert ranges.overlaps(offset, length) is bool(bytes_of_it & present)
        assert ranges.covers(offset, length) is (bytes_of_it <= present)
        if bytes_of_it & present:
            with pytest.raises(LocalProtocolError):
                add(ranges, offset, length)
        else:
            add(ranges, offset, length)
            present |= bytes_of_it
    assert ranges.ranges() == [
        ByteRange(offset, length, crc32c(CONTENT[offset : offset + length]))
        for offset, length in runs(present, 300)
    ]
    assert ranges.end == max(present, default=-1) + 1
    for size in (0, 1, 100, 300):
        assert ranges.missing(size) == runs(set(range(size)) - present, size)
    holes = ranges.missing(300)
    assert ranges.prefix == (holes[0][0] if holes else 300)
    assert ranges.missing(300, count_max=1) == holes[:1]


@given(st.permutations(range(8)))
def test_the_whole_checksum_does_not_depend_on_the_order(order: list[int]) -> None:
    ranges = WrittenRanges()
    for at in order:
        add(ranges, at * 64, 64)
    assert ranges.ranges() == [ByteRange(0, 512, crc32c(CONTENT))]
    assert ranges.crc32c(512) == crc32c(CONTENT) and ranges.prefix == 512


def test_a_checksum_with_holes_is_refused() -> None:
    ranges = WrittenRanges()
    add(ranges, 0, 10)
    add(ranges, 20, 10)
    for size in (0, 10, 20, 30):
        with pytest.raises(LocalProtocolError):
            ranges.crc32c(size)


def test_a_chunk_without_bytes_is_refused() -> None:
    ranges = WrittenRanges()
    for offset in (0, 10):
        with pytest.raises(LocalProtocolError):
            ranges.add(offset, 0, 0)
        add(ranges, offset, 10)


def test_the_same_chunk_again_is_no_fault() -> None:
    ranges = WrittenRanges()
    ranges.add(0, 64, 1)
    ranges.add(64, 64, 2)
    assert ranges.judge(0, 64, 1) is Verdict.REPEATED
    assert ranges.judge(64, 64, 2) is Verdict.REPEATED
    assert ranges.judge(128, 64, 2) is Verdict.NEW


@pytest.mark.parametrize(
    ("offset", "length", "checksum"),
    [
        (0, 64, 9),
        (0, 32, 1),
        (0, 128, 1),
        (32, 32, 1),
        (32, 64, 1),
        (96, 64, 1),
        (64, 192, 1),
    ],
)
def test_other_bytes_or_another_cut_is_a_conflict(offset: int, length: int, checksum: int) -> None:
    ranges = WrittenRanges()
    ranges.add(0, 64, 1)
    ranges.add(64, 64, 2)
    assert ranges.judge(offset, length, checksum) is Verdict.CONFLICT


def test_a_chunk_of_long_ago_is_forgotten_not_refused() -> None:
    ranges = WrittenRanges(chunks_remembered=2)
    for at in range(4):
        ranges.add(at * 64, 64, at)
    assert ranges.judge(0, 64, 0) is Verdict.FORGOTTEN
    assert ranges.judge(64, 128, 0) is Verdict.CONFLICT
    assert ranges.judge(192, 64, 3) is Verdict.REPEATED


def test_ranges_apart_are_limited_and_holes_can_still_be_filled() -> None:
    ranges = WrittenRanges(ranges_max=2)
    add(ranges, 0, 10)
    add(ranges, 20, 10)
    for refused in (ranges.judge, ranges.add):
        with pytest.raises(RemoteProtocolError) as caught:
            refused(40, 10, 0)
        assert caught.value.code is ErrorCode.TOO_MANY_RANGES
    for offset in (30, 10):
        assert ranges.judge(offset, 10, 0) is Verdict.NEW
        add(ranges, offset, 10)
    assert ranges.ranges() == [ByteRange(0, 40, crc32c(CONTENT[:40]))]


def test_a_plain_upload_stays_one_range_and_few_chunks() -> None:
    ranges = WrittenRanges(chunks_remembered=16)
    for at in range(10_000):
        ranges.add(at << 20, 1 << 20, at)
    assert len(ranges) == 1 and ranges.prefix == 10_000 << 20
    assert len(ranges._chunks) == 16
