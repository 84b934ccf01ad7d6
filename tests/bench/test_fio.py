"""fio.py: its command line, and its report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.harness.cell import Cell
from bench.harness.fio import FioReport, command, parse
from bench.harness.measurement import CannotRunError, Order

ORDER = Order("fio", "/disk/a:b", Cell("fresh", 1 << 30, 1 << 20, 16), 0)


def report(**changes: object) -> str:
    write = {
        "io_bytes": 2 << 30,
        "runtime": 700,
        "lat_ns": {"percentile": {"50.000000": 1000, "99.900000": 9_000_000}},
    }
    job = {"error": 0, "usr_cpu": 5.0, "sys_cpu": 15.0, "write": write} | changes
    return json.dumps({"fio version": "fio-3.33", "jobs": [job]})


def words(order: Order, engine: str = "io_uring") -> set[str]:
    return set(command(order, engine, order.target))


def test_its_own_runtime_is_what_counts() -> None:
    expected = FioReport(0.7, 2 << 30, 0.35, {"50": 1.0, "99.9": 9000.0})
    assert parse(report(usr_cpu=0, sys_cpu=50)) == expected


def test_what_it_says_before_the_report_is_skipped() -> None:
    assert parse("note: something about engines\n" + report()).runtime_s == 0.7


@pytest.mark.parametrize(
    "text", ["", "fio: not found", "{}", '{"jobs": []}', "[]", '{"jobs": [7]}']
)
def test_what_is_no_report_is_said_to_be_none(text: str) -> None:
    with pytest.raises(CannotRunError, match="report could not be read"):
        parse(text)


def test_a_job_that_failed_names_its_error() -> None:
    with pytest.raises(CannotRunError, match="No space left on device"):
        parse(report(error=28))


def test_the_command_line_is_the_one_the_method_names() -> None:
    said = words(ORDER)
    expected = {"--ioengine=io_uring", "--direct=1", "--iodepth=16", "--end_fsync=1"}
    assert expected | {"--fallocate=posix", "--bs=1048576", "--size=1073741824"} <= said
    assert r"--filename=/disk/a\:b/file" in said
    assert "--ioengine=libaio" in words(ORDER, "libaio")


def test_a_file_that_is_there_is_written_into_as_it_is() -> None:
    there = replace(ORDER, cell=Cell("overwrite", 1 << 20, 4096, 1))
    assert {"--rw=write", "--fallocate=none"} <= words(there)
    shuffled = replace(ORDER, cell=Cell("random", 1 << 20, 4096, 1))
    assert {"--rw=randwrite", "--fallocate=none"} <= words(shuffled)
    log = replace(ORDER, cell=Cell("log", 1 << 20, 4096, 1))
    assert {"--fdatasync=1", "--rw=write"} <= words(log)


def test_latencies_include_the_submission() -> None:
    assert {"--lat_percentiles=1", "--percentile_list=50:90:99:99.9"} <= words(ORDER)
    assert ORDER.target == Path("/disk/a:b/file")
