"""What contenders write, each in each pattern it takes part in: the right bytes, all of them."""

from __future__ import annotations

import importlib.util
import pkgutil
import shutil
from typing import TYPE_CHECKING

import pytest

import uringio
from bench.harness.cell import Cell
from bench.harness.contenders import CONTENDERS
from bench.harness.content import expected_crc, file_crc
from bench.harness.jobs import all_jobs
from bench.harness.measurement import CannotRunError, Measurement, Order
from bench.harness.prepare import lay_out
from bench.harness.rounds import measure
from uringio._ring import beside, software
from uringio._ring.many import IN_FLIGHT_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.cell import Pattern

MIB = 1 << 20
CELLS: dict[Pattern, Cell] = {
    "fresh": Cell("fresh", 2 * MIB, 64 << 10, 4),
    "overwrite": Cell("overwrite", 2 * MIB, 64 << 10, 4),
    "random": Cell("random", MIB, 4 << 10, 8),
    "log": Cell("log", 64 << 10, 4 << 10, 1),
}
PACKAGES = {
    "trio-file": "trio",
    "anyio-file": "anyio",
    "ayafileio-direct": "ayafileio",
    "aiofiles": "aiofiles",
    "aiofile": "aiofile",
    "ayafileio": "ayafileio",
    "urio": "urio",
}
TAKES_PART = sorted(
    {
        (name, cell.pattern)
        for job in all_jobs(quick=True).values()
        for cell in job.cells
        for name in job.contenders
    }
)
needs_io_uring = pytest.mark.skipif(not uringio.probe().available, reason="no io_uring here")


def skip_what_is_missing(name: str) -> None:
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} (of the bench extra) is not installed")
    if CONTENDERS[name].kind == "yardstick" and shutil.which("fio") is None:
        pytest.skip("fio is not installed")
    if CONTENDERS[name].kind in {"ours", "without"} and not uringio.probe().available:
        pytest.skip("no io_uring here")


def order_for(name: str, cell: Cell, directory: Path) -> Order:
    order = Order(name, str(directory), cell, 0)
    lay_out(order.target, cell)
    return order


def run(order: Order) -> Measurement:
    """Measure here, or in a child where a contender changes its process."""
    contender = CONTENDERS[order.contender]
    if contender.kind == "without":
        return measure(order)
    measured: Measurement = pkgutil.resolve_name(contender.run)(order)
    return measured


@pytest.mark.parametrize(
    ("name", "pattern"), [each for each in TAKES_PART if not CONTENDERS[each[0]].uploads]
)
def test_every_block_is_written_where_it_belongs(
    name: str, pattern: Pattern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_what_is_missing(name)
    for ring in (beside, software):  # put back afterwards
        monkeypatch.setattr(ring, "IN_FLIGHT_MAX", IN_FLIGHT_MAX)
    order = order_for(name, CELLS[pattern], tmp_path)
    found = run(order)
    assert found.seconds > 0
    assert order.target.stat().st_size == order.cell.size_bytes
    contender, cell = CONTENDERS[name], order.cell
    if contender.checked:
        different = contender.different_blocks(cell)
        expected = expected_crc(cell.size_bytes, cell.block_bytes, different)
        assert file_crc(order.target, order.cell.block_bytes) == expected


@pytest.mark.parametrize(
    "name", ["fio", "uringio-pwrite", "os-pwrite-direct", "os-pwrite-threads", "ayafileio-direct"]
)
def test_a_timed_contender_has_its_percentiles(name: str, tmp_path: Path) -> None:
    skip_what_is_missing(name)
    cell = Cell("random", MIB, 4 << 10, 8, timed=True)
    facts = run(order_for(name, cell, tmp_path)).facts
    assert set(facts["latency_us"]) == {"50", "90", "99", "99.9"}
    assert 0 < facts["latency_us"]["50"] <= facts["latency_us"]["99.9"]


@needs_io_uring
@pytest.mark.parametrize(
    ("name", "fact", "value"),
    [
        ("uringio-slots", "registered", True),
        ("no-registered", "registered", False),
        ("uringio-slots", "preallocated", True),
        ("no-fallocate", "preallocated", False),
        ("no-direct", "direct", False),
        ("no-huge-pages", "huge_pages", False),
        ("uringio-threads", "backend", "threads"),
    ],
)
def test_what_is_switched_off_is_off(name: str, fact: str, value: object, tmp_path: Path) -> None:
    cell = Cell("fresh", 8 * MIB, MIB, 4)  # a pool of two huge pages
    assert measure(order_for(name, cell, tmp_path)).facts[fact] == value


@needs_io_uring
def test_with_one_in_flight_each_block_is_waited_for(tmp_path: Path) -> None:
    cell = Cell("fresh", 2 * MIB, 64 << 10, 1)
    assert run(order_for("uringio-slots", cell, tmp_path)).facts["slot_waits"] == 0


def test_a_peer_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = order_for("urio", CELLS["fresh"], tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "urio", None)
    with pytest.raises(CannotRunError, match="urio cannot be imported by Python"):
        run(order)
