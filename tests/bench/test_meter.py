"""meter.py: what the kernel counts."""

import os
import subprocess
import sys

from bench.harness.meter import (
    Meter,
    Usage,
    family_cpu_s,
    family_of,
    family_peak_bytes,
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


def test_a_family_is_a_process_with_its_children_and_what_the_dead_ones_used() -> None:
    code = """
import os, signal, time
while time.process_time() < 0.05: pass
if not os.fork():
    while time.process_time() < 0.1: pass
    os._exit(0)
os.wait()
child = os.fork()
if not child:
    signal.pause()
print("ready", flush=True)
input()
os.kill(child, 9)
os.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-IS", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert len(family_of(parent.pid)) == 2
        user_s, system_s = family_cpu_s(parent.pid)
        assert user_s + system_s >= 0.1
        peak, own = family_peak_bytes(parent.pid), peak_rss_bytes(parent.pid)
        assert peak is not None
        assert own is not None
        assert peak > own
        parent.communicate("\n", timeout=30)
    assert family_peak_bytes(parent.pid) is None
