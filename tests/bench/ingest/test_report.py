"""tables.py, plot.py and method.py of uploads: what a reader sees."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness.cell import Cell
from bench.harness.document import blocks_of
from bench.harness.ingest import contenders as known
from bench.harness.ingest.method import method_lines
from bench.harness.ingest.tables import sheets_of
from bench.harness.results import Result
from bench.harness.suites import save_pictures
from bench.harness.tables import markdown_table
from bench.harness.units import KIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import MakeResult

SMALL = Cell("uploads", 8 * MIB, 4 * KIB, 64, timed=True)
FACTS = {"latency_us": {"50": 1500.0, "99": 12345.0}, "client_cpu_s": 0.4}

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib (the bench extra) is missing"
)


@pytest.fixture
def result(make_result: MakeResult) -> Result:
    times = {known.TCP: [1.0], known.LOOP: [2.0], known.NGINX: [0.5], known.WRK: [0.25]}
    return make_result(times, job="4k", cell=SMALL, facts=FACTS)


def test_a_row_says_whether_it_is_durable_what_it_costs_and_how_long_it_takes(
    result: Result,
) -> None:
    (job,) = result.settings.jobs
    (sheet,) = sheets_of(result, job)
    assert sheet.caption == "2,048 uploads of 4 KiB over 64 connections"
    row = dict(zip(sheet.columns, (text for text, _ in sheet.rows[known.TCP]), strict=True))
    assert row["durable"] == "yes"
    assert row["x files-loop"] == "2.00"
    assert row["uploads/s"] == "2048"
    assert row["CPU us/upload"] == f"{0.3 / 2048 * 1e6:.0f}"
    assert row["client"] == f"{0.4 / 2048 * 1e6:.0f}"
    assert (row["p50 ms"], row["p99 ms"]) == ("1.5", "12.3")
    assert sheet.rows[known.NGINX][0] == ("no", "")
    assert "| nginx PUT, 2 workers, not synced |" in "\n".join(markdown_table(sheet))


def test_the_method_says_of_each_what_its_time_is_and_what_is_installed(result: Result) -> None:
    text = "\n".join(method_lines(result.settings, result.environment))
    assert "4k: Uploads of 4 KiB (2,048 uploads of 4 KiB over 64 connections)." in text
    assert "by our own generator (one thread, epoll, sendfile)" in text
    assert "a power cut takes it back" in text
    for name in ("nginx", "rsync", "wrk", "uvicorn", "tuspyserver"):
        assert name in text


def test_a_report_says_what_is_left_out_and_who_is_not_here(result: Result) -> None:
    result.missing["4k"] = {known.RSYNC: "rsync is not installed: apt-get install rsync"}
    blocks = blocks_of(result, {"4k": "4k.svg", "4k-cost": "4k-cost.svg"})
    assert list(blocks) == ["ingest-acceptance", "4k"]
    assert "(4k.svg)" in blocks["4k"]
    assert "(4k-cost.svg)" in blocks["4k"]
    assert "Not measured here: " in blocks["4k"]
    assert "rsync daemon, --fsync: not here, rsync is not installed: apt-get" in blocks["4k"]


@needs_matplotlib
def test_each_job_has_a_picture_of_rates_and_one_of_costs(result: Result, tmp_path: Path) -> None:
    pictures = save_pictures(result, tmp_path)
    assert list(pictures) == ["4k", "4k-cost"]
    rates, costs = (path.read_text() for path in pictures.values())
    assert "nginx PUT, 2 workers, not synced (not durable)" in rates
    assert "2,048" in rates
    assert "kernel threads" in costs
    assert "1.5 - 12" in costs


@needs_matplotlib
def test_rates_by_the_number_of_connections_are_lines(
    make_result: MakeResult, tmp_path: Path
) -> None:
    cells = [replace(SMALL, depth=depth) for depth in (1, 16, 64)]
    found = [
        make_result({known.TCP: [1.0], known.LOOP: [2.0]}, job="4k", cell=cell, facts=FACTS)
        for cell in cells
    ]
    first = found[0]
    (job,) = first.settings.jobs
    settings = replace(first.settings, jobs=(replace(job, cells=tuple(cells)),))
    runs = [run for result in found for run in result.runs if run.contender == known.TCP]
    runs += [run for run in found[2].runs if run.contender == known.LOOP]
    pictures = save_pictures(Result(settings, first.environment, [], runs), tmp_path)
    assert list(pictures) == ["4k", "4k-cost", "4k-connections"]
    lines = pictures["4k-connections"].read_text()
    assert "uringd, TCP" in lines
    assert "one file after another" not in lines, "it has one cell only"
    assert "over 64 connections" in pictures["4k"].read_text(), "which most took part in"
