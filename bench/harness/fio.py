"""fio, the yardstick: what the kernel and the disk give when nothing else is done.

Which of fio's times counts: its own `runtime` of the write job, which ends after end_fsync. It
leaves out the process's start, the file's creation and the reservation by fallocate, all of which
the other contenders have inside their time: the comparison leans towards fio. The time around the
whole process is kept as `wall_s`.

Which CPU time counts: fio's own figures are of its job thread alone, without the io-wq workers, so
the process is measured from outside. It spends about 0.2 s on calibrating its clock before it
starts; a run of a single block, just before, measures that, and it is taken off.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter, Usage, peak_rss_bytes
from bench.harness.quiet import wait_for_rest

if TYPE_CHECKING:
    from bench.harness.measurement import Job

POLL_S = 0.1
"""How often fio's peak memory is read while it runs: it is gone with the process. Seldom enough not
to be felt, often enough for the half second that a quick run takes."""


@dataclass(frozen=True, slots=True)
class FioReport:
    """What fio says about its write job, in seconds, bytes and microseconds."""

    runtime_s: float
    size_bytes: int
    job_cpu_s: float
    latency_p99_us: float


def fresh_file(job: Job) -> Measurement:
    """io_uring, O_DIRECT, fallocate, end_fsync, into a new file."""
    if shutil.which("fio") is None:
        raise CannotRunError("fio is not installed: apt-get install fio")
    _, start_up, _ = _run(replace(job, size_bytes=job.block_bytes))
    job.target.unlink()
    wait_for_rest(job.target.parent, job.rest_timeout_s)
    report, usage, rss_bytes = _run(job)
    if report.size_bytes != job.size_bytes:
        raise CannotRunError(f"fio wrote {report.size_bytes} of {job.size_bytes} bytes")
    return Measurement(
        seconds=report.runtime_s,
        wall_s=usage.wall_s,
        user_s=max(0.0, usage.user_s - start_up.user_s),
        system_s=max(0.0, usage.system_s - start_up.system_s),
        kworkers_s=usage.kworkers_s,
        others_s=usage.others_s(usage.user_s + usage.system_s),
        rss_bytes=rss_bytes,
        path=str(job.target),
        facts={
            "start_up_s": start_up.wall_s,
            "start_up_cpu_s": start_up.user_s + start_up.system_s,
            "job_thread_cpu_s": report.job_cpu_s,
            "latency_p99_us": report.latency_p99_us,
        },
    )


def command(job: Job) -> list[str]:
    """Build fio's command line."""
    return [
        "fio",
        "--name=fresh",
        "--filename=" + str(job.target).replace(":", r"\:"),  # a colon separates files
        "--rw=write",
        "--ioengine=io_uring",
        "--direct=1",
        f"--bs={job.block_bytes}",
        f"--size={job.size_bytes}",
        f"--iodepth={job.depth}",
        "--fallocate=posix",
        "--end_fsync=1",
        "--thread",  # one process, so that its peak memory is the job's
        "--output-format=json",
    ]


def parse(text: str) -> FioReport:
    """Read fio's JSON. Raises CannotRunError when the job failed or this is no report."""
    try:
        fields: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
        error, written = int(fields["error"]), fields["write"]
        runtime_s = written["runtime"] / 1000
        percentiles = written["clat_ns"].get("percentile", {})
        report = FioReport(
            runtime_s=runtime_s,
            size_bytes=written["io_bytes"],
            job_cpu_s=(fields["usr_cpu"] + fields["sys_cpu"]) / 100 * runtime_s,
            latency_p99_us=percentiles.get("99.000000", 0) / 1000,
        )
    except (ValueError, LookupError, TypeError) as exc:
        raise CannotRunError("fio's report could not be read: is it fio 3?") from exc
    if error:
        raise CannotRunError(f"fio failed: {os.strerror(error)}")
    return report


def _run(job: Job) -> tuple[FioReport, Usage, int | None]:
    output = Path(job.directory) / "fio.json"
    meter = Meter()
    with output.open("wb") as file:
        meter.start()
        process = subprocess.Popen(command(job), stdout=file, stderr=subprocess.PIPE)
        rss_bytes = _watch(process)
        usage = meter.stop()
    _, said = process.communicate()
    if process.returncode:
        why = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CannotRunError(f"fio failed: {why[-1]}")
    return parse(output.read_text()), usage, rss_bytes


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
