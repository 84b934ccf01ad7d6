"""fio, the yardstick: what the kernel and the disk give when nothing else is done.

Which of fio's times counts: its own `runtime` of the write job, which ends after end_fsync. It
leaves out the process's start, the file's creation and the reservation by fallocate, all of which
the other contenders have inside their time: the comparison leans towards fio. The time around the
whole process is kept as `wall_s`.

Which CPU time counts: fio's own figures are of its job thread alone, without the io-wq workers, so
the process is measured from outside. It spends about 0.2 s on calibrating its clock before it
starts; a run of a single block, just before, measures that, and it is taken off.

Which latency: its `lat`, from before the submission to the completion, not `clat`, which leaves the
submission out.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness.latency import PERCENTILES
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter, Usage, peak_rss_bytes
from bench.harness.quiet import wait_for_rest
from uringio._ring.many import IN_FLIGHT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.measurement import Order

POLL_S = 0.1
"""How often fio's peak memory is read while it runs: it is gone with the process. Seldom enough not
to be felt, often enough for the half second that a quick run takes."""

PATTERNS = {
    "fresh": ["--rw=write", "--fallocate=posix"],
    "overwrite": ["--rw=write", "--fallocate=none"],
    "random": ["--rw=randwrite", "--fallocate=none"],
    "log": ["--rw=write", "--fallocate=none", "--fdatasync=1"],
}


@dataclass(frozen=True, slots=True)
class FioReport:
    """What fio says about its write job: seconds, bytes, and latencies by percentile."""

    runtime_s: float
    size_bytes: int
    job_cpu_s: float
    latency_us: dict[str, float]


def io_uring(order: Order) -> Measurement:
    """Write by io_uring."""
    return _measure(order, "io_uring")


def io_uring_deep(order: Order) -> Measurement:
    """Write by io_uring with as many in flight as `pwrite_many` has."""
    return _measure(replace(order, cell=replace(order.cell, depth=IN_FLIGHT_MAX)), "io_uring")


def libaio(order: Order) -> Measurement:
    """Write by the older asynchronous calls (io_submit(2))."""
    return _measure(order, "libaio")


def _measure(order: Order, engine: str) -> Measurement:
    if shutil.which("fio") is None:
        raise CannotRunError("fio is not installed: apt-get install fio")
    start_up = _start_up(order, engine)
    wait_for_rest(order.target.parent, order.rest_timeout_s)
    report, usage, rss_bytes = _run(order, engine, order.target)
    if report.size_bytes != order.cell.size_bytes:
        raise CannotRunError(f"fio wrote {report.size_bytes} of {order.cell.size_bytes} bytes")
    return Measurement(
        seconds=report.runtime_s,
        wall_s=usage.wall_s,
        user_s=max(0.0, usage.user_s - start_up.user_s),
        system_s=max(0.0, usage.system_s - start_up.system_s),
        kworkers_s=usage.kworkers_s,
        others_s=usage.others_s(usage.user_s + usage.system_s),
        rss_bytes=rss_bytes,
        path=str(order.target),
        facts={
            "start_up_s": start_up.wall_s,
            "start_up_cpu_s": start_up.user_s + start_up.system_s,
            "job_thread_cpu_s": report.job_cpu_s,
            "latency_us": report.latency_us,
        },
    )


def _start_up(order: Order, engine: str) -> Usage:
    """Measure what fio needs for one block, in a file of its own."""
    first = order.target.with_name("start-up")
    cell = replace(order.cell, pattern="fresh", size_bytes=order.cell.block_bytes)
    _, usage, _ = _run(replace(order, cell=cell), engine, first)
    first.unlink()
    return usage


def command(order: Order, engine: str, target: Path) -> list[str]:
    """Build fio's command line."""
    cell = order.cell
    return [
        "fio",
        f"--name={cell.pattern}",
        "--filename=" + str(target).replace(":", r"\:"),  # a colon separates files
        *PATTERNS[cell.pattern],
        f"--ioengine={engine}",
        "--direct=1",
        f"--bs={cell.block_bytes}",
        f"--size={cell.size_bytes}",
        f"--iodepth={cell.depth}",
        "--end_fsync=1",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
        "--percentile_list=" + ":".join(PERCENTILES),
        "--thread",  # one process, so that its peak memory is the job's
        "--output-format=json",
    ]


def parse(text: str) -> FioReport:
    """Read fio's JSON. Raises CannotRunError when the job failed or this is no report."""
    try:
        fields: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
        error, written = int(fields["error"]), fields["write"]
        runtime_s = written["runtime"] / 1000
        percentiles = written["lat_ns"].get("percentile", {})
        report = FioReport(
            runtime_s=runtime_s,
            size_bytes=written["io_bytes"],
            job_cpu_s=(fields["usr_cpu"] + fields["sys_cpu"]) / 100 * runtime_s,
            latency_us={f"{float(name):g}": value / 1000 for name, value in percentiles.items()},
        )
    except (ValueError, LookupError, TypeError) as exc:
        raise CannotRunError("fio's report could not be read: is it fio 3?") from exc
    if error:
        raise CannotRunError(f"fio failed: {os.strerror(error)}")
    return report


def _run(order: Order, engine: str, target: Path) -> tuple[FioReport, Usage, int | None]:
    output = Path(order.directory) / "fio.json"
    words = command(order, engine, target)
    meter = Meter()
    with output.open("wb") as file:
        meter.start()
        with _ended(subprocess.Popen(words, stdout=file, stderr=subprocess.PIPE)) as process:
            rss_bytes = _watch(process)
            usage = meter.stop()
            _, said = process.communicate()
    if process.returncode:
        why = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CannotRunError(f"fio failed: {why[-1]}")
    return parse(output.read_text()), usage, rss_bytes


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leave no fio behind when we are told to end."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _watch(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process; the result is the last that could be read of its peak memory."""
    peak = None
    ended = os.pidfd_open(process.pid)
    try:
        while not select.select([ended], [], [], POLL_S)[0]:
            peak = peak_rss_bytes(process.pid) or peak
    finally:
        os.close(ended)
    process.wait()
    return peak
