"""tables.py: what a reader sees."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from bench.harness.figures import figures_of
from bench.harness.tables import COLUMNS, markdown, remarks, rich_table

if TYPE_CHECKING:
    from tests.bench.conftest import MakeResult

SECONDS = {"fio": [1.0, 2.0], "uringio-slots": [1.0, 1.0], "os-write": [4.0, 4.0]}


def test_the_markdown_table_has_a_row_for_each_contender_ratios_first(
    make_result: MakeResult,
) -> None:
    result = make_result(SECONDS)
    lines = markdown(result, figures_of(result), "report/fresh-file.svg").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| " + " | ".join(COLUMNS) + " |"
    assert table[3].startswith(
        "| uringio, slots, size known | 1.50 (1.00-2.00) | 4.00 (4.00-4.00) | 1024 (1024-1024) |"
    )
    assert len(table) == 2 + len(SECONDS)
    assert "report/fresh-file.svg" in lines[-1]


def test_the_terminal_table_fits_80_columns(make_result: MakeResult) -> None:
    result = make_result(SECONDS | {"os-pwrite-direct": [0.5, 0.6]})
    page = io.StringIO()
    Console(file=page, width=80).print(rich_table(figures_of(result)))
    assert all(len(line) <= 80 for line in page.getvalue().splitlines())
    assert "os-pwrite-direct" in page.getvalue()
    assert "1.00-2.00" in page.getvalue()


def test_a_quiet_run_of_everything_has_no_remarks(make_result: MakeResult) -> None:
    result = make_result(SECONDS)
    assert remarks(result, figures_of(result)) == []


def test_nothing_is_left_out_in_silence(make_result: MakeResult) -> None:
    facts = {"direct": False, "backend": "threads", "registered": False, "notes": ["no huge pages"]}
    result = make_result({"uringio-slots": [1.0]}, others_s=9.0, facts=facts)
    result.missing["fio"] = "fio is not installed"
    said = " ".join(remarks(result, figures_of(result)))
    for word in (
        "fio is not installed",
        "not direct",
        "threads",
        "not registered",
        "huge",
        "1 of 1",
    ):
        assert word in said


def test_an_uploads_receipt_is_looked_at_too(make_result: MakeResult) -> None:
    facts = {"client_cpu_s": 0.25, "receipt": {"direct": False, "backend": "io_uring"}}
    result = make_result({"uringd-tcp": [1.0]}, facts=facts)
    said = " ".join(remarks(result, figures_of(result)))
    assert "not direct" in said
    assert "client used 0.25 CPU s/GiB" in said


def test_a_run_with_memory_left_as_it_was_says_what_that_does_to_os_write(
    make_result: MakeResult,
) -> None:
    result = make_result(SECONDS)
    object.__setattr__(result.settings, "memory", "as-is")
    (said,) = remarks(result, figures_of(result))
    assert "Free memory was left as it was" in said
