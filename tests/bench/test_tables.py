"""tables.py: what a reader sees."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from bench.harness.cell import Cell
from bench.harness.tables import markdown_table, rich_table, sheets_of
from tests.bench.conftest import CELL

if TYPE_CHECKING:
    from bench.harness.results import Result
    from bench.harness.tables import Sheet
    from tests.bench.conftest import MakeResult

SECONDS = {"fio": [1.0, 2.0], "uringio-slots": [1.0, 1.0], "os-write": [4.0, 4.0]}
LATENCIES = {"50": 10.0, "90": 20.0, "99": 40.0, "99.9": 12345.0}


def sheets(result: Result) -> list[Sheet]:
    (job,) = result.settings.jobs
    return sheets_of(result, job)


def test_the_markdown_table_has_a_row_for_each_contender_ratios_first(
    make_result: MakeResult,
) -> None:
    (sheet,) = sheets(make_result(SECONDS))
    table = [line for line in markdown_table(sheet) if line.startswith("|")]
    assert table[0].startswith("| | x fio | x os.write | MiB/s |")
    assert table[3].startswith(
        "| uringio, slots, size known | 1.50 (1.00-2.00) | 4.00 (4.00-4.00) | 1024 (1024-1024) |"
    )
    assert len(table) == 2 + len(SECONDS)
    assert "1 GiB in blocks of 1 MiB, QD16" in markdown_table(sheet)[0]


def test_small_blocks_are_counted_in_writes(make_result: MakeResult) -> None:
    cell = Cell("random", 1 << 30, 4096, 128)
    (sheet,) = sheets(make_result({"fio": [2.0]}, job="random", cell=cell))
    values = dict(zip(sheet.columns, sheet.rows["fio"], strict=True))
    assert values["1,000 writes/s"][0] == "131.1"
    assert values["CPU us/write"][0] == "1.1"
    assert values["kernel threads"][0] == "1.9", "in the unit of the column before"


def test_latencies_have_a_ratio_and_microseconds_for_each_percentile(
    make_result: MakeResult,
) -> None:
    result = make_result(
        {"fio": [1.0], "uringio-pwrite": [1.0]},
        job="latency",
        cell=replace(CELL, timed=True),
        facts={"latency_us": LATENCIES},
    )
    ratios, values = sheets(result)
    assert ratios.columns == values.columns == ["p50", "p90", "p99", "p99.9"]
    assert values.rows["uringio-pwrite"][3][0] == "12345"
    assert ratios.rows["uringio-pwrite"][3][0] == "1"


def test_many_cells_are_rows_of_one_table(make_result: MakeResult) -> None:
    result = make_result({"fio": [2.0], "uringio-slots": [1.0]}, job="depths")
    (job,) = result.settings.jobs
    cells = (CELL, *(replace(CELL, depth=depth) for depth in (1, 2, 4)))
    (sheet,) = sheets_of(result, replace(job, cells=cells))
    assert list(sheet.rows) == ["1 MiB QD16"], "the others did not run"
    assert sheet.rows["1 MiB QD16"][0][0] == "2.00"
    assert sheet.columns[:3] == ["x fio", "slots MiB/s", "fio MiB/s"]


def test_the_terminal_table_fits_80_columns(make_result: MakeResult) -> None:
    found = sheets(make_result(SECONDS | {"os-pwrite-threads": [0.5, 0.6]}))
    found += sheets(
        make_result(
            {"fio": [1.0], "os-pwrite-threads": [1.0]},
            job="latency",
            cell=replace(CELL, timed=True),
            facts={"latency_us": LATENCIES},
        )
    )
    page = io.StringIO()
    for sheet in found:
        Console(file=page, width=80).print(rich_table(sheet))
    assert all(len(line.rstrip()) <= 80 for line in page.getvalue().splitlines())
    assert page.getvalue().count("os-pwrite-threads") == 3
    assert "1.00-2.00" in page.getvalue()


def test_a_job_that_did_not_run_has_no_table(make_result: MakeResult) -> None:
    assert sheets(make_result({"fio": []})) == []
