"""run.py, report.py and demo.py as make runs them: small, whole, and what they leave."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

import uringio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.bench.conftest import MakeResult, Script

    Bench = Callable[..., tuple[str, dict[str, Any]]]

TINY = ("--size", "8MiB", "--rounds", "1", "--rest", "0", "--memory", "as-is")

needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
needs_io_uring = pytest.mark.skipif(not uringio.probe().available, reason="no io_uring here")
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib (the bench extra) is missing"
)


@pytest.fixture
def bench(script: Script, tmp_path: Path) -> Bench:
    """Run a tiny comparison of some contenders; the result is what it printed and its JSON."""

    def run(*names: str) -> tuple[str, dict[str, Any]]:
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        result = tmp_path / "result.json"
        only = [word for name in names for word in ("--only", name)]
        done = script("run.py", *TINY, "--dir", disk, "--json", result, *only)
        assert done.returncode == 0, done.stderr
        assert list(disk.iterdir()) == []
        return done.stdout, json.loads(result.read_text())

    return run


@pytest.mark.parametrize("name", ["run.py", "report.py", "demo.py"])
def test_help_teaches(script: Script, name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "\b" not in done.stdout


def test_plain_writes_are_measured_and_checked(bench: Bench) -> None:
    said, result = bench("os-write", "os-pwrite-direct")
    assert "os-write" in said
    assert said.index("Content is random") < said.index("median of 1 round"), "method first"
    assert result["checked"] or result["missing"]
    assert result["environment"]["file_system"]


@needs_io_uring
def test_every_way_into_the_library_writes_the_right_bytes(bench: Bench) -> None:
    names = ["uringio-slots", "uringio-unsized", "uringio-write", "uringio-threads"]
    _, result = bench(*names)
    assert result["missing"] == {}
    assert sorted(result["checked"]) == sorted(names)
    facts = {run["contender"]: run["measurement"]["facts"] for run in result["runs"]}
    assert facts["uringio-slots"]["backend"] == "io_uring"
    assert facts["uringio-threads"]["backend"] == "threads"
    assert facts["uringio-write"]["durability"] == "published"


@needs_fio
def test_fio_takes_part(bench: Bench) -> None:
    _, result = bench("fio", "os-write")
    assert result["missing"] == {}
    assert result["figures"]["os-write"]["over"]["fio"]["median"] > 0


def test_a_size_that_is_none_is_a_usage_error(script: Script) -> None:
    for size in ("much", "0", "1000"):
        assert script("run.py", "--size", size, "--rounds", "1").returncode == 2


def test_a_disk_that_is_too_small_is_said_to_be(script: Script, tmp_path: Path) -> None:
    done = script("run.py", "--size", "900000GiB", "--dir", tmp_path)
    assert done.returncode == 1
    assert re.search(r"free and .* are needed", done.stderr)
    assert list(tmp_path.iterdir()) == []


@needs_matplotlib
def test_a_report_is_a_picture_and_a_table(
    script: Script, make_result: MakeResult, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    make_result({"fio": [1.0, 1.1], "os-write": [2.0, 2.1]}).save(result, {})
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- figures -->\n<!-- /figures -->\nafter\n")
    done = script("report.py", result, "-o", tmp_path / "report", "--into", readme)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "fresh-file.svg").read_text().rstrip().endswith("</svg>")
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| os.write + fsync | 0.5" in text
    assert "(report/fresh-file.svg)" in text


def test_a_file_that_is_no_result_is_one_sentence(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}")
    done = script("report.py", path)
    assert done.returncode == 1
    assert "is not a result of bench/run.py" in done.stderr
    assert "Traceback" not in done.stderr
