"""run.py, ingest.py, report.py and demo.py as make runs them: small, whole, and what they leave."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.harness.suites import SUITES
from tests.bench.conftest import LONG, PYTHON, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.bench.conftest import MakeResult, Script

    Bench = Callable[..., tuple[str, dict[str, Any]]]

TINY = ("--size", "8MiB", "--rounds", "1", "--rest", "0", "--memory", "as-is")

needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib (the bench extra) is missing"
)


@pytest.fixture
def bench(script: Script, tmp_path: Path) -> Bench:
    """Run some jobs of some contenders, tiny; the result is what was printed and the JSON."""

    def run(jobs: str, *names: str) -> tuple[str, dict[str, Any]]:
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        result = tmp_path / "result.json"
        only = [word for name in names for word in ("--only", name)]
        done = script("run.py", *TINY, "--dir", disk, "--json", result, "--jobs", jobs, *only)
        assert done.returncode == 0, done.stderr
        assert list(disk.iterdir()) == []
        return done.stdout, json.loads(result.read_text())

    return run


@pytest.mark.parametrize("name", ["run.py", "ingest.py", "report.py", "demo.py"])
def test_help_teaches(script: Script, name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "\b" not in done.stdout


def test_jobs_are_measured_checked_and_reported(bench: Bench, tmp_path: Path) -> None:
    said, result = bench("fresh,random", "os-write", "os-pwrite-direct")
    assert "1,000" not in said, "heads of columns are short on a terminal"
    assert said.index("Content is random") < said.index("fresh: Fresh file"), "method first"
    assert {run["job"] for run in result["runs"]} == {"fresh", "random"}
    assert "random/4 KiB QD128/os-write" in result["checked"]
    assert result["environment"]["file_system"]
    report = (tmp_path / "result" / "report.md").read_text()
    assert "## random" in report
    assert "| figure | asked | measured | |" in report


def test_uploads_are_measured_compared_and_reported(script: Script, tmp_path: Path) -> None:
    disk, result = tmp_path / "disk", tmp_path / "result.json"
    disk.mkdir()
    words = [*TINY[2:], "--size", "2MiB", "--dir", disk, "--json", result, "--jobs", "2g,4k"]
    done = script("ingest.py", *words, "--only", "recv-fsync", "--only", "files-loop")
    assert done.returncode == 0, done.stderr
    assert list(disk.iterdir()) == []
    document = json.loads(result.read_text())
    assert document["settings"]["suite"] == "ingest"
    cells = {(run["cell"], run["contender"]) for run in document["runs"]}
    assert ("2 MiB x1", "recv-fsync") in cells
    assert ("4 KiB x256", "recv-fsync") in cells
    assert "4k/4 KiB x64/files-loop" in document["checked"]
    assert "512 uploads of 4 KiB over 64 connections" in done.stdout
    report = (tmp_path / "result" / "report.md").read_text()
    assert report.startswith("# A run of `make bench-ingest`")
    assert "| recv + os.write + fsync | yes |" in report


@needs_fio
def test_fio_takes_part(bench: Bench) -> None:
    _, result = bench("fresh", "fio", "fio-libaio", "os-write")
    assert result["missing"] == {"fresh": {}}
    figures = result["figures"]["fresh"]["1 MiB QD16"]
    assert figures["os-write"]["over"]["fio"]["median"] > 0


def test_who_cannot_do_a_job_is_a_remark_with_the_reason(bench: Bench) -> None:
    said, result = bench("latency", "os-write", "os-pwrite-direct")
    assert "its writes end in the page cache" in result["missing"]["latency"]["os-write"]
    assert "os.write + fsync: not here, its writes end in the page cache" in said


def test_a_size_that_is_none_is_a_usage_error(script: Script) -> None:
    for size in ("much", "0", "1000"):
        assert script("run.py", "--size", size, "--rounds", "1").returncode == 2


def test_a_job_or_a_pair_that_there_is_not_is_a_usage_error(script: Script) -> None:
    done = script("run.py", "--jobs", "fresh,nothing")
    assert done.returncode == 2
    assert "'nothing' is no job: there are fresh, " in done.stderr
    done = script("run.py", "--jobs", "fresh", "--only", "uringio-chain")
    assert done.returncode == 2
    assert "takes part" in done.stderr


def test_a_directory_that_is_none_is_one_sentence(script: Script, tmp_path: Path) -> None:
    done = script("run.py", "--dir", tmp_path / "missing")
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_is_too_small_is_said_to_be(script: Script, tmp_path: Path) -> None:
    done = script("run.py", "--size", "900000GiB", "--dir", tmp_path)
    assert done.returncode == 1
    assert re.search(r"free and .* are needed", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "job", "contender"),
    [("run.py", "fresh", "os-write"), ("ingest.py", "4k", "recv-fsync")],
)
def test_an_interruption_keeps_what_is_whole_and_leaves_no_files_and_no_servers(
    tmp_path: Path, name: str, job: str, contender: str
) -> None:
    disk, result = tmp_path / "disk", tmp_path / "result.json"
    disk.mkdir()
    words = [*PYTHON, str(ROOT / "bench" / name), *TINY, "--rounds", "1000", "--jobs", job]
    words += ["--size", "1MiB"] * (name == "ingest.py")
    words += ["--only", contender, "--dir", str(disk), "--json", str(result)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        measured = 0
        while measured < 6 and (line := process.stderr.readline()):
            measured += line.startswith(job)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=LONG)
    assert process.returncode == 130, complained
    assert "interrupted: what is whole is kept" in complained
    assert f"{job}: " in said
    document = json.loads(result.read_text())
    assert document["interrupted"]
    assert 1 <= len(document["runs"]) < 1000
    assert list(disk.iterdir()) == []
    assert not [words for words in command_lines() if str(disk) in words]


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it may end while we look
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


@needs_matplotlib
def test_a_report_is_pictures_and_a_block_for_each_job(
    script: Script, make_result: MakeResult, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    make_result({"fio": [1.0, 1.1], "os-write": [2.0, 2.1]}).save(result, {})
    readme = tmp_path / "README.md"
    names = (SUITES["library"].acceptance, "fresh", "random")
    markers = [f"<!-- figures: {name} -->\nold\n<!-- /figures: {name} -->\n" for name in names]
    readme.write_text("before\n" + "".join(markers) + "after\n")
    done = script("report.py", result, "-o", tmp_path / "report", "--into", readme)
    assert done.returncode == 0, done.stderr
    for name in ("fresh", "page-cache"):
        assert (tmp_path / "report" / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| os.write + fsync | 0.5" in text
    assert "(report/fresh.svg)" in text
    assert text.count("old") == 2, "a job that was not measured keeps what it has, and the demands"


def test_the_readme_has_a_block_for_every_job() -> None:
    text = (ROOT / "bench/README.md").read_text()
    for suite in SUITES.values():
        for name in (suite.acceptance, *suite.jobs(False)):
            assert text.count(f"<!-- figures: {name} -->") == 1
            assert text.count(f"<!-- /figures: {name} -->") == 1


def test_a_file_that_is_no_result_is_one_sentence(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}")
    done = script("report.py", path)
    assert done.returncode == 1
    assert "is not a result of bench/run.py" in done.stderr
    assert "Traceback" not in done.stderr
