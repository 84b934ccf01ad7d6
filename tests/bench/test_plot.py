"""plot.py and what it draws with: a picture for every shape of job, readable on light and dark."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness.canvas import DARK, with_dark_style
from bench.harness.cell import Cell
from bench.harness.suites import save_pictures
from tests.bench.conftest import CELL

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.results import Result
    from tests.bench.conftest import MakeResult

UNSEEN = {"#1f77b4"}
"""matplotlib fills the caps of whiskers with it, which are lines and have no inside."""


def draw(result: Result, folder: Path) -> dict[str, str]:
    pytest.importorskip("matplotlib", reason="matplotlib (the bench extra) is missing")
    return {name: path.read_text() for name, path in save_pictures(result, folder).items()}


def check_colours(svg: str) -> None:
    drawn, style = re.sub(r"<style>@media.*?</style>", "", svg), svg
    colours = set(re.findall(r'(?:fill|stroke)(?:: |=")(#[0-9a-f]{6})', drawn)) - UNSEEN
    assert colours
    assert colours <= set(DARK), "every colour has a dark counterpart"
    assert all(f'[style*="fill: {colour}"]' in style for colour in colours)


def test_bars_have_ratios_costs_and_the_page_cache(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({"fio": [1.0, 2.0], "uringio-slots": [1.0, 1.0], "os-write": [4.0, 4.0]})
    found = draw(result, tmp_path)
    assert set(found) == {"fresh", "page-cache"}
    assert "uringio, slots, size known" in found["fresh"]
    assert "1.50  (1,024)" in found["fresh"]
    for svg in found.values():
        check_colours(svg)


def test_without_a_reference_bars_are_rates(make_result: MakeResult, tmp_path: Path) -> None:
    found = draw(make_result({"uringio-slots": [2.0]}, cached_bytes=None), tmp_path)
    assert set(found) == {"fresh"}
    assert ">512<" in found["fresh"]


def test_depths_are_lines(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({"fio": [2.0], "uringio-slots": [1.0]}, job="depths")
    (job,) = result.settings.jobs
    cells = tuple(replace(CELL, depth=depth) for depth in (1, 4, 16, 32))
    object.__setattr__(result.settings, "jobs", (replace(job, cells=cells),))
    svg = draw(result, tmp_path)["depths"]
    assert "queue depth" in svg
    check_colours(svg)


def test_latencies_are_lines_by_percentile(make_result: MakeResult, tmp_path: Path) -> None:
    facts = {"latency_us": {"50": 100.0, "99.9": 5000.0}}
    cell = Cell("random", 1 << 30, 4096, 32, timed=True)
    names = {"fio": [1.0], "uringio-pwrite": [1.0]}
    svg = draw(make_result(names, job="latency", cell=cell, facts=facts), tmp_path)["latency"]
    assert ">p99.9<" in svg
    assert ">5 ms<" in svg
    check_colours(svg)


def test_the_same_result_is_the_same_picture(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({"fio": [1.0], "os-write": [2.0]})
    assert draw(result, tmp_path / "one") == draw(result, tmp_path / "two")


def test_the_dark_style_comes_before_what_is_drawn() -> None:
    svg = with_dark_style('<svg><defs></defs><path style="fill: #333333"/></svg>')
    assert svg.index("prefers-color-scheme: dark") < svg.index("<defs>")
    assert f"fill: {DARK['#333333']} !important" in svg
