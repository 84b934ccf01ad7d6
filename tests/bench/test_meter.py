"""meter.py: what the kernel counts."""

import os
import subprocess
import sys

from bench.harness.meter import (
    Meter,
    Usage,
    kernel_thread_ticks,
    machine_ticks,
    peak_rss_bytes,
    process_ticks,
)


def test_a_childs_cpu_time_counts_once_it_was_waited_for() -> None:
    meter = Meter()
    meter.start()
    work = "sum(i * i for i in range(300_000))"
    subprocess.run([sys.executable, "-IS", "-c", work], check=True)
    usage = meter.stop()
    assert usage.wall_s > 0
    assert usage.user_s + usage.system_s > 0
    assert usage.machine_s >= 0


def test_noise_is_what_neither_we_nor_the_kernel_used() -> None:
    usage = Usage(wall_s=1, user_s=0.5, system_s=0.25, kworkers_s=0.25, machine_s=1.5)
    assert usage.others_s(0.75) == 0.5
    assert usage.others_s(9) == 0


def test_a_process_is_not_a_kernel_thread() -> None:
    assert os.getpid() not in kernel_thread_ticks()
    assert process_ticks(os.getpid())[0] == os.getppid()
    assert machine_ticks() > 0


def test_the_peak_of_a_process_that_is_gone_is_not_known() -> None:
    child = subprocess.Popen([sys.executable, "-IS", "-c", ""])
    child.wait()
    assert peak_rss_bytes(child.pid) is None
    assert (peak_rss_bytes() or 0) > 1 << 20
