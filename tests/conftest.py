"""What every test may ask for: child processes, file systems of its own, the descriptor count."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.lacking import lacking, need_root, need_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD_TIMEOUT_S = 60
"""A child that takes longer is stuck: the test fails instead of hanging."""

STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=/^io_uring_")
"""strace for the ring's system calls, a prefix of `run_python`: the kernel stops a process at these
only. Stopped at every one, Python takes ten times as long to start, a minute where it is emulated.
"""


def pytest_collection_finish() -> None:
    """Take what collection has made out of what the garbage collector looks through each time."""
    gc.collect()
    gc.freeze()


class RunPython(Protocol):
    def __call__(
        self, code: str, *args: object, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]: ...


class MakeFileSystem(Protocol):
    def __call__(self, kind: str, mebibytes: int) -> Path: ...


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Run code in a Python of its own, behind `prefix` (strace, setpriv), and expect success."""

    def run(
        code: str, *args: object, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        for tool in prefix[:1]:
            need_tool(tool)
        done = subprocess.run(
            [*prefix, sys.executable, "-W", "error", "-c", code, *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            timeout=CHILD_TIMEOUT_S,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def count_descriptors() -> Callable[[], int]:
    """Count the open descriptors of this process."""

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    return count


@pytest.fixture
def make_file_system(tmp_path: Path) -> Iterator[MakeFileSystem]:
    """Make a file system in a loop image below tmp_path and mount it until the test is over."""
    mounted: list[Path] = []

    def make(kind: str, mebibytes: int) -> Path:
        need_root("mounting a file system")
        need_tool(f"mkfs.{kind}")
        image = tmp_path / f"{kind}-{len(mounted)}.image"
        point = tmp_path / f"{kind}-{len(mounted)}"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        point.mkdir()
        force = "-F" if kind == "ext4" else "-f"
        subprocess.run([f"mkfs.{kind}", "-q", force, image], check=True, capture_output=True)
        done = subprocess.run(
            ["mount", "-o", "loop", image, point], check=False, capture_output=True, text=True
        )
        if done.returncode:
            lacking(f"no loop mounts here: {done.stderr.strip()}")
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        subprocess.run(["umount", point], check=True)


@pytest.fixture
def file_system(request: pytest.FixtureRequest, make_file_system: MakeFileSystem) -> Path:
    """As make_file_system, for async tests, in which the reason of a skip would not be shown.

    Ask for it with `parametrize("file_system", [("ext4", 32)], indirect=True)`: kind and MiB.
    """
    kind, mebibytes = request.param
    return make_file_system(kind, mebibytes)
