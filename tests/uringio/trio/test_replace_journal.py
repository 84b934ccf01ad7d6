"""A journal's header is believed whole or not at all; its name is found by the inode."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from uringio._ring.libc import FileIdentity, statx_identity
from uringio._trio.replace_journal import (
    CRC,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    REPLACE_BYTES_MAX,
    VERSION,
    Home,
    Record,
    find_home,
    journal_bytes,
    payload_at,
)
from uringio.exceptions import UnavailableError

RECORD = Record(FileIdentity(12, 1_700_000_000, 999_999_999), 5, 4096, 0xDEADBEEF)

records = st.builds(
    Record,
    st.builds(
        FileIdentity,
        st.integers(0, (1 << 64) - 1),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.integers(0, 999_999_999),
    ),
    st.integers(0, 1 << 62),
    st.integers(1, REPLACE_BYTES_MAX),
    st.integers(0, (1 << 32) - 1),
)


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    block = record.pack()
    assert len(block) == HEADER_BYTES
    assert Record.unpack(block, "journal") == record


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_a_header_with_any_byte_changed_is_torn(at: int, change: int) -> None:
    block = bytearray(RECORD.pack())
    block[at] ^= change
    assert Record.unpack(bytes(block), "journal") is None


@pytest.mark.parametrize("length", [0, 1, 512, HEADER_BYTES - 1])
def test_a_header_that_ends_early_is_torn(length: int) -> None:
    assert Record.unpack(RECORD.pack()[:length], "journal") is None
    assert Record.unpack(RECORD.pack()[:length].ljust(HEADER_BYTES, b"\0"), "journal") is None


def sealed(*fields: object) -> bytes:
    body = HEADER.pack(*fields).ljust(HEADER_BYTES - CRC.size, b"\0")
    return body + CRC.pack(crc32c(body))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, REPLACE_BYTES_MAX + 1), ((1 << 63) - 1, 1), (1 << 63, 1)]
)
def test_a_range_that_no_replace_can_have_is_not_believed(offset: int, length: int) -> None:
    assert Record.unpack(sealed(MAGIC, VERSION, 1, 2, 3, offset, length, 4), "journal") is None


def test_another_magic_is_no_journal() -> None:
    assert Record.unpack(sealed(b"UNKNOWN!", VERSION, 1, 2, 3, 4, 5, 6), "journal") is None


def test_a_whole_journal_of_another_version_is_refused_not_ignored() -> None:
    with pytest.raises(UnavailableError, match="dir/journal is a journal of version 2"):
        Record.unpack(sealed(MAGIC, VERSION + 1, 1, 2, 3, 4, 5, 6), "dir/journal")


@given(st.integers(0, 1 << 62), st.integers(1, 1 << 20))
def test_the_payload_stands_in_its_journal_as_in_its_blocks(offset: int, length: int) -> None:
    assert payload_at(offset, offset) % 4096 == offset % 4096
    assert HEADER_BYTES <= payload_at(offset, offset) < HEADER_BYTES + 4096
    end = payload_at(offset, offset) + length
    assert end <= journal_bytes(offset, length) < end + 4096


def homed(path: Path, use: Callable[[Home | None], None]) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        home = find_home(fd, str(path), to_write=True)
        try:
            use(home)
        finally:
            if home is not None:
                os.close(home.dir_fd)
    finally:
        os.close(fd)


def test_a_file_is_at_home_in_the_directory_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    def check(home: Home | None) -> None:
        assert home is not None
        assert os.path.samestat(os.fstat(home.dir_fd), tmp_path.stat())
        assert home.name(3) == f".uringio-journal-{path.stat().st_ino:x}-3"
        assert home.path_of("x") == str(tmp_path / "x")
        assert home.present() == []
        (tmp_path / home.name(7)).touch()
        assert home.present() == [home.name(7)]

    homed(path, check)


def test_a_symbolic_link_leads_to_the_directory_of_the_file(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").touch()
    (tmp_path / "link").symlink_to("real/file")

    def check(home: Home | None) -> None:
        assert home is not None
        assert os.path.samestat(os.fstat(home.dir_fd), real.stat())

    homed(tmp_path / "link", check)


def test_what_has_no_name_has_no_home(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file:
        path.unlink()
        assert find_home(file.fileno(), str(path), to_write=True) is None
        path.touch()  # the name again, and another file
        assert find_home(file.fileno(), str(path), to_write=True) is None
    with open("/dev/null", "rb") as device:
        assert find_home(device.fileno(), "/dev/null", to_write=True) is None


def test_a_file_that_takes_a_name_has_an_identity_of_its_own(tmp_path: Path) -> None:
    found = set()
    for _ in range(20):  # ext4 gives the same inode number again
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        identity = statx_identity(fd)
        assert identity is not None
        assert identity.inode == os.fstat(fd).st_ino
        assert identity == statx_identity(fd)
        found.add(identity)
        os.fsync(fd)
        os.close(fd)
        os.unlink(tmp_path / "file")
    assert len(found) > 1


def test_the_layout_is_the_documented_one() -> None:
    block = RECORD.pack()
    assert block[:8] == b"uringio\n"
    assert struct.unpack_from("<IQqIQQI", block, 8) == (
        1, 12, 1_700_000_000, 999_999_999, 5, 4096, 0xDEADBEEF,
    )  # fmt: skip
    assert not any(block[HEADER.size : -4])


def test_a_file_whose_directory_is_gone_has_no_home(tmp_path: Path) -> None:
    path = tmp_path / "sub/file"
    path.parent.mkdir()
    with path.open("wb") as file:
        path.unlink()
        path.parent.rmdir()
        assert find_home(file.fileno(), str(path), to_write=False) is None
