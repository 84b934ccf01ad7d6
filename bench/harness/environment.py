"""What was measured on: without it a figure says nothing."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UNKNOWN = "unknown"

Environment = dict[str, str | int]


def describe(directory: Path) -> Environment:
    """Describe the machine, the disk under `directory`, and the programs."""
    mount = _mount_of(directory)
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _field("/proc/cpuinfo", r"^model name\s*:\s*(.+)$"),
        "cpu_count": len(os.sched_getaffinity(0)),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none"),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "huge_pages": _chosen(_read("/sys/kernel/mm/transparent_hugepage/enabled")),
        "load": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
        **_device(directory),
        **mount,
        "fio": _said("fio", "--version"),
        "python": platform.python_version(),
        "trio": _installed("trio"),
        "cffi": _installed("cffi"),
        "liburing": _said("pkg-config", "--modversion", "liburing"),
        "uringio": _installed("uringd", "from the source tree"),
        "commit": _commit(),
    }


def block_device(directory: Path) -> Path | None:
    """Find the whole disk under a directory in /sys, None for file systems without one."""
    number = directory.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not link.exists():
        return None
    device = link.resolve()
    return device.parent if (device / "partition").exists() else device


def _device(directory: Path) -> Environment:
    device = block_device(directory)
    if device is None:
        return {"device": "none (no single block device)"}
    queue = device / "queue"
    return {
        "device": device.name,
        "device_model": _read(device / "device/model", _driver(device)),
        "rotational": _read(queue / "rotational"),
        "write_cache": _read(queue / "write_cache"),
        "scheduler": _chosen(_read(queue / "scheduler")),
        "request_kib_max": _read(queue / "max_sectors_kb"),
        "segments_max": _read(queue / "max_segments"),
    }


def _driver(device: Path) -> str:
    driver = device / "device/driver"
    return driver.resolve().name if driver.exists() else UNKNOWN


def _mount_of(directory: Path) -> Environment:
    """Find type and options in /proc/self/mountinfo (proc(5)): the last mount of that device."""
    number = directory.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    found: Environment = {"file_system": UNKNOWN, "mount_options": UNKNOWN}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if fields[2] == wanted:
            options = sorted(set(fields[5].split(",") + kind[2].split(",")))
            found = {"file_system": kind[0], "mount_options": ",".join(options)}
    return found


def _read(path: str | Path, default: str = UNKNOWN) -> str:
    try:
        return Path(path).read_text().strip() or default
    except OSError:
        return default


def _field(path: str, pattern: str) -> str:
    match = re.search(pattern, _read(path), re.MULTILINE)
    return match[1] if match else platform.processor() or UNKNOWN


def _chosen(text: str) -> str:
    """Of "none [mq-deadline] kyber": the one in brackets."""
    match = re.search(r"\[(.+?)\]", text)
    return match[1] if match else text


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or UNKNOWN


def _installed(distribution: str, otherwise: str = "not installed") -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def _commit() -> str:
    """Name the commit, "+changes" when files differ from it; "none" outside a work tree."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return "none"
    git = ("git", "-C", str(REPOSITORY))
    commit = _said(*git, "rev-parse", "--short=12", "HEAD")
    changed = _said(*git, "status", "--porcelain", "--untracked-files=no") != UNKNOWN
    return f"{commit}+changes" if changed else commit
