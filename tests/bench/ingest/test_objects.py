"""objects.py: what is in an upload, and what is found out about one that is not as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.harness.cell import Cell
from bench.harness.content import stamp, write_source
from bench.harness.ingest.objects import Objects, begin_of
from bench.harness.units import KIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Cell("uploads", 16 * KIB, 4 * KIB, 3)
BIG = Cell("uploads", 4 * MIB, 2 * MIB, 2)


@pytest.fixture
def written(tmp_path: Path) -> Objects:
    """Four small objects in a folder, each as it should be."""
    objects = Objects(SMALL, "")
    for number in range(objects.count):
        block = objects.block()
        stamp(block, number)
        assert bytes(block) == objects.head(number) + bytes(objects.tail())
        (tmp_path / objects.name(number)).write_bytes(block)
    return objects


def test_objects_that_are_whole_are_not_wrong(written: Objects, tmp_path: Path) -> None:
    assert written.wrong(written.in_folder(tmp_path)) == ""


def test_objects_that_changed_places_are_found_out(written: Objects, tmp_path: Path) -> None:
    first, second = (tmp_path / written.name(number) for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert "000000 has 4096 bytes with CRC32C" in written.wrong(written.in_folder(tmp_path))


def test_an_object_that_is_missing_or_short_is_found_out(written: Objects, tmp_path: Path) -> None:
    path = tmp_path / written.name(3)
    path.write_bytes(path.read_bytes()[:-1])
    assert "000003 has 4095 bytes" in written.wrong(written.in_folder(tmp_path))
    path.unlink()
    assert written.wrong(written.in_folder(tmp_path)) == "000003: No such file or directory"


def test_big_objects_are_the_begin_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_source(source, 3 * MIB, MIB)
    objects = Objects(BIG, str(source))
    for number in range(objects.count):
        begin_of(source, objects.size_bytes, tmp_path / objects.name(number))
    assert objects.wrong(objects.in_folder(tmp_path)) == ""
    with (tmp_path / objects.name(1)).open("r+b") as file:
        file.seek(MIB)
        file.write(b"another")
    assert objects.wrong(objects.in_folder(tmp_path)).startswith("000001 has 2097152 bytes")


def test_every_object_is_the_share_of_one_connection() -> None:
    objects = Objects(SMALL, "")
    shares = [list(objects.share(connection)) for connection in range(objects.connections)]
    assert sorted(number for share in shares for number in share) == [0, 1, 2, 3]
    assert Objects(Cell("uploads", 4096, 4096, 64), "").connections == 1, "the rest has none"
