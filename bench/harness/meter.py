"""The meter: wall time, CPU time and memory of a stretch of a process's life.

What the kernel counts where:
- io-wq workers are threads of the process that owns the ring: getrusage(RUSAGE_SELF) has them.
  (RUSAGE_THREAD has not, which is what fio's own figures are made of.)
- What the kernel does on nobody's behalf (write-back of dirty pages, completion of requests, the
  journal) runs in kernel threads, the children of pid 2. /proc/PID/stat counts it in ticks of
  10 ms. It cannot be told whose it was: on a machine that does nothing else it was ours.
- /proc/stat counts all of it together, with interrupts. What is left of that after the process and
  the kernel threads is other processes: noise, and the result says how much of it there was.
- `ru_maxrss` survives exec: a child that was started by vfork begins with its parent's peak. VmHWM
  of /proc/PID/status belongs to the address space and begins anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
KTHREADD_PID = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stretch of time used, in seconds. `kworkers_s` is None where none can be seen."""

    wall_s: float
    user_s: float
    system_s: float
    kworkers_s: float | None
    machine_s: float

    def others_s(self, own_s: float) -> float:
        """CPU seconds of all other processes, when `own_s` were the contender's."""
        return max(0.0, self.machine_s - own_s - (self.kworkers_s or 0.0))


@dataclass(frozen=True, slots=True)
class _Reading:
    wall_s: float
    user_s: float
    system_s: float


class Meter:
    """Measures from `start` to `stop`; the process's waited-for children count too."""

    def __init__(self) -> None:
        self._kworkers: dict[int, int] = {}
        self._machine = 0
        self._begin = _Reading(0, 0, 0)

    def start(self) -> None:
        """Begin. What is slow to read is read outside the time, before and after it."""
        self._kworkers = kernel_thread_ticks()
        self._machine = machine_ticks()
        self._begin = _read()

    def stop(self) -> Usage:
        """End, and say what was used since `start`."""
        begin, end = self._begin, _read()
        machine = machine_ticks() - self._machine
        kworkers = kernel_thread_ticks()
        spent = sum(now - self._kworkers.get(pid, 0) for pid, now in kworkers.items())
        return Usage(
            wall_s=end.wall_s - begin.wall_s,
            user_s=end.user_s - begin.user_s,
            system_s=end.system_s - begin.system_s,
            kworkers_s=spent * TICK_S if kworkers else None,
            machine_s=machine * TICK_S,
        )


def _read() -> _Reading:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Reading(
        wall_s=time.perf_counter(),
        user_s=own.ru_utime + children.ru_utime,
        system_s=own.ru_stime + children.ru_stime,
    )


def machine_ticks() -> int:
    """Ticks that all CPUs were busy, from the first line of /proc/stat (proc(5))."""
    numbers = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(number) for number in numbers[:7])
    return user + nice + system + irq + softirq


def kernel_thread_ticks() -> dict[int, int]:
    """Ticks of every kernel thread, by pid."""
    ticks = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may end while we look
            parent, user, system = process_ticks(int(entry.name))
            if parent == KTHREADD_PID:
                ticks[int(entry.name)] = user + system
    return ticks


def process_ticks(pid: int) -> tuple[int, int, int]:
    """Parent, user ticks and system ticks of a process with all its threads (proc(5), stat)."""
    fields = _stat(pid)
    return int(fields[1]), int(fields[11]), int(fields[12])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family_of(pid: int) -> list[int]:
    """Give a process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def family_cpu_s(pid: int) -> tuple[float, float]:
    """User and system CPU seconds of a process, its living descendants, and those waited for."""
    user = system = 0
    for member in family_of(pid):
        with contextlib.suppress(OSError):
            fields = _stat(member)
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
    return user * TICK_S, system * TICK_S


def family_peak_bytes(pid: int) -> int | None:
    """Add up the peaks of a process and its living descendants; pages they share count for each."""
    peaks = [peak_rss_bytes(member) for member in family_of(pid)]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) if known else None


def peak_rss_bytes(pid: int | str = "self") -> int | None:
    """Peak resident memory of a process, or None when it has none (any more)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) << 10 if match else None
