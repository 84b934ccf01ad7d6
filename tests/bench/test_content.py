"""content.py: known bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.content import expected_crc, file_crc, make_block, stamp, write_source

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096


def test_the_checksum_of_a_file_is_known_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_source(path, 5 * BLOCK, BLOCK)
    assert path.stat().st_size == 5 * BLOCK
    assert file_crc(path, 3000) == expected_crc(5 * BLOCK, BLOCK)


def test_blocks_that_changed_places_are_found_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_source(path, 2 * BLOCK, BLOCK)
    data = path.read_bytes()
    path.write_bytes(data[BLOCK:] + data[:BLOCK])
    assert file_crc(path, BLOCK) != expected_crc(2 * BLOCK, BLOCK)


def test_a_stamp_changes_eight_bytes_and_every_process_makes_the_same_block() -> None:
    block, other = make_block(BLOCK), make_block(BLOCK)
    assert block == other
    stamp(block, 1 << 40)
    assert block[8:] == other[8:]
    assert block != other
