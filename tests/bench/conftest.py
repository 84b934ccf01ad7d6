"""What the tests of bench/ share: how its scripts are run, and results that need no disk."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# bench/ is no installed package. Its harness keeps its own folder once it is imported, so the
# repository needs to be on the path for that moment only (it would make other folders importable).
sys.path.append(str(ROOT))
importlib.import_module("bench.harness")
sys.path.remove(str(ROOT))

from bench.harness.cell import Cell  # noqa: E402
from bench.harness.ingest.jobs import ingest_jobs  # noqa: E402
from bench.harness.jobs import all_jobs  # noqa: E402
from bench.harness.measurement import Measurement  # noqa: E402
from bench.harness.results import Result, Run, Settings  # noqa: E402
from bench.harness.units import GIB, MIB  # noqa: E402

PYTHON = [sys.executable, "-I" if sys.flags.isolated else "-P"]
LONG = 120  # seconds a script may take before it counts as stuck

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script() -> Script:
    """Run a script of bench/ as make does."""

    def run(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*PYTHON, str(ROOT / "bench" / name), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)

    return run


MakeResult = Callable[..., Result]


CELL = Cell("fresh", GIB, MIB, 16)


@pytest.fixture
def make_result() -> MakeResult:
    """Make a result of one job and one cell, from each contender's seconds, round by round."""

    def make(
        seconds: dict[str, list[float]],
        *,
        job: str = "fresh",
        cell: Cell = CELL,
        cached_bytes: int | None = 0,
        **changes: Any,
    ) -> Result:
        rounds = max((len(values) for values in seconds.values()), default=0)
        suites = {"library": all_jobs(quick=False), "ingest": ingest_jobs(quick=False)}
        (suite,) = (name for name, jobs in suites.items() if job in jobs)
        made = replace(suites[suite][job], contenders=tuple(seconds), cells=(cell,))
        settings = Settings(rounds, 10.0, "in-use", (made,), suite)
        runs = [
            Run(number, 0, job, cell.name, name, True, cached_bytes, _measurement(value, changes))
            for name, values in seconds.items()
            for number, value in enumerate(values)
        ]
        return Result(settings, ENVIRONMENT.copy(), ["how it was done"], runs)

    return make


def _measurement(seconds: float, changes: dict[str, Any]) -> Measurement:
    fields: dict[str, Any] = {
        "seconds": seconds,
        "wall_s": seconds,
        "user_s": 0.1,
        "system_s": 0.2,
        "kworkers_s": 0.5,
        "others_s": 0.0,
        "rss_bytes": 64 * MIB,
        "path": "file",
        "facts": {},
    }
    return Measurement(**(fields | changes))


ENVIRONMENT: dict[str, str | int] = {
    "date": "2026-01-01T00:00:00+00:00",
    "kernel": "Linux 6.18 x86_64",
    "cpu": "a CPU",
    "cpu_count": 2,
    "governor": "none",
    "memory_bytes": 8 * GIB,
    "huge_pages": "madvise",
    "load": "0.00 0.00 0.00",
    "device": "vda",
    "file_system": "ext4",
    "mount_options": "rw",
    "fio": "fio-3.33",
    "python": "3.11",
    "trio": "0.35",
    "cffi": "2.1",
    "liburing": "2.3",
    "uringio": "0.1.0",
    "commit": "none",
}
