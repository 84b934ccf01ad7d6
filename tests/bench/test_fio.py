"""fio.py: its command line, and its report."""

import json

import pytest

from bench.harness.fio import FioReport, command, parse
from bench.harness.measurement import CannotRunError, Job


def report(**changes: object) -> str:
    write = {
        "io_bytes": 2 << 30,
        "runtime": 700,
        "clat_ns": {"percentile": {"50.000000": 1000, "99.000000": 9_000_000}},
    }
    job = {"error": 0, "usr_cpu": 5.0, "sys_cpu": 15.0, "write": write} | changes
    return json.dumps({"fio version": "fio-3.33", "jobs": [job]})


def test_its_own_runtime_is_what_counts() -> None:
    assert parse(report(usr_cpu=0, sys_cpu=50)) == FioReport(0.7, 2 << 30, 0.35, 9000)


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
    said = command(Job("fio", "/disk/a:b", 1 << 30, 1 << 20, 16, 0))
    expected = {"--ioengine=io_uring", "--direct=1", "--iodepth=16", "--end_fsync=1"}
    assert expected | {"--fallocate=posix", "--bs=1048576", "--size=1073741824"} <= set(said)
    assert r"--filename=/disk/a\:b/file" in said
