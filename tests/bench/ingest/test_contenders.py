"""Every contender of uploads, really started, with a handful of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.harness.cell import Cell
from bench.harness.content import write_source
from bench.harness.ingest import contenders as known
from bench.harness.ingest.jobs import ingest_jobs
from bench.harness.measurement import CannotRunError, Order
from bench.harness.rounds import measure
from bench.harness.units import KIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.measurement import Measurement

SMALL = Cell("uploads", 48 * KIB, 4 * KIB, 4, timed=True)
BIG = Cell("uploads", 6 * MIB, 2 * MIB, 2, timed=True)
NOT_HERE = ("is not installed", "--workers")
"""What a contender says that needs more than this machine, or this uringd, has."""
UNTIMED = {known.DISK, known.RSYNC}


def upload(name: str, cell: Cell, tmp_path: Path) -> Measurement:
    source = tmp_path / "source"
    write_source(source, 4 * MIB, MIB)
    directory = tmp_path / "run"
    directory.mkdir()
    try:
        return measure(Order(name, str(directory), cell, 0, str(source)))
    except CannotRunError as exc:
        if any(reason in str(exc) for reason in NOT_HERE):
            pytest.skip(str(exc))
        raise


def takes_part_in(size: str) -> list[str]:
    return list(ingest_jobs(quick=False)[size].contenders)


@pytest.mark.parametrize("name", takes_part_in("4k"))
def test_small_objects_arrive_whole_and_are_measured(name: str, tmp_path: Path) -> None:
    found = upload(name, SMALL, tmp_path)
    assert found.wrong == ""
    assert found.path == "", "what was written was compared where it was written"
    assert found.seconds > 0
    assert found.user_s + found.system_s >= 0
    assert found.rss_bytes
    if name not in UNTIMED:
        assert 0 < found.facts["latency_us"]["50"] <= found.facts["latency_us"]["99"]
    assert ("sync_s" in found.facts) is name.endswith("nginx-synced")


@pytest.mark.parametrize("name", takes_part_in("64m"))
def test_big_objects_arrive_whole_and_are_measured(name: str, tmp_path: Path) -> None:
    found = upload(name, BIG, tmp_path)
    assert found.wrong == ""
    assert found.seconds > 0
    assert found.rss_bytes
    assert bool(found.path) is (name == known.DISK)


@pytest.mark.parametrize("name", [known.COPY, known.SEALED, known.SLAB])
def test_one_object_goes_through_shared_memory(name: str, tmp_path: Path) -> None:
    cell = Cell("uploads", 4 * MIB, 4 * MIB, 1, timed=True)
    found = upload(name, cell, tmp_path)
    assert found.wrong == ""
    assert found.seconds > 0
