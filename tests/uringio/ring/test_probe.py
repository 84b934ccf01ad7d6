"""probe(), why_unavailable and choose_ring: what there is, why not, and what mends it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

import uringio
from tests.conftest import STRACE
from uringio import _binding
from uringio._ring import unavailable, uring
from uringio._ring.choose import choose_ring
from uringio._ring.unavailable import why_unavailable
from uringio.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import RunPython


def test_the_probe_says_what_a_ring_then_has(count_descriptors: Callable[[], int]) -> None:
    before = count_descriptors()
    answer = uringio.probe()
    assert count_descriptors() == before
    if not answer.available:
        assert answer.reason.startswith("no io_uring")
        pytest.skip(answer.reason)
    ring = uring.UringRing(8)
    assert answer.reason == ""
    assert answer.setup_flags == ring.features.setup_flags
    assert set(answer.missing_opcodes) == {op.name for op in ring.features.missing_opcodes}
    assert answer.kernel.startswith("Linux ")
    ring.close()


PROBE = """
import os, uringio
before = len(os.listdir("/proc/self/fd"))
answer = uringio.probe()
assert not answer.available
assert len(os.listdir("/proc/self/fd")) == before
print(answer.reason)
"""


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        ("ENOSYS", "is built without it"),
        ("EPERM", "docker/seccomp.json"),
        ("EACCES", "docker/seccomp.json"),
        ("ENOMEM", "ulimit -l"),
        ("EMFILE", "ulimit -n"),
    ],
)
def test_the_probe_says_why_there_is_none_and_what_mends_it(
    run_python: RunPython, error: str, mend: str
) -> None:
    if not uringio.probe().available:
        pytest.skip("there is no io_uring to take away")
    inject = ("-e", f"inject=io_uring_setup:error={error}")
    done = run_python(PROBE, prefix=(*STRACE, "-o", "/dev/null", *inject))
    assert done.stdout.startswith(f"no io_uring ({error}): ")
    assert mend in done.stdout


def test_a_memory_lock_limit_of_nothing_is_named(run_python: RunPython) -> None:
    if not uringio.probe().available:
        pytest.skip("there is no io_uring to take away")
    code = "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))" + PROBE
    drop = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    try:
        done = run_python(code, prefix=drop)
    except AssertionError as exc:
        pytest.skip(f"this kernel does not charge rings, or the capability stays: {exc}")
    assert "RLIMIT_MEMLOCK is too small" in done.stdout


def test_no_descriptor_left_is_a_reason_and_leaks_none(run_python: RunPython) -> None:
    code = """
import os, resource
import uringio
before = len(os.listdir("/proc/self/fd"))
highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
for spare in range(3):
    limit = highest + spare
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
    answer = uringio.probe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert len(os.listdir("/proc/self/fd")) == before, spare
    assert answer.available or "ulimit -n" in answer.reason, answer
"""
    run_python(code)


def test_a_disabled_sysctl_is_told_from_a_seccomp_filter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting = tmp_path / "io_uring_disabled"
    monkeypatch.setattr(unavailable, "DISABLED", setting)
    assert "seccomp" in why_unavailable(errno.EPERM)
    setting.write_text("0\n")
    assert "seccomp" in why_unavailable(errno.EPERM)
    setting.write_text("2\n")
    assert "sysctl -w kernel.io_uring_disabled=0" in why_unavailable(errno.EPERM)
    assert "seccomp" in why_unavailable(errno.EACCES)


def test_other_errors_keep_their_name() -> None:
    assert why_unavailable(errno.EINVAL) == "no io_uring (EINVAL): Invalid argument"


@pytest.fixture
def no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a pure-Python install."""
    monkeypatch.setattr(uring, "lib", None)
    monkeypatch.setattr(_binding, "missing", "the compiled binding is not there (test)")


def test_a_missing_binding_is_a_reason_of_its_own(no_binding: None) -> None:
    answer = uringio.probe()
    assert not answer.available
    assert "liburing-dev" in answer.reason
    assert "(test)" in answer.reason


def test_auto_falls_back_to_threads_and_says_why(no_binding: None) -> None:
    ring = choose_ring("auto", 64)
    assert ring.features.backend == "threads"
    assert any("liburing-dev" in note for note in ring.features.notes)
    ring.close()


def test_io_uring_that_was_asked_for_is_not_downgraded(no_binding: None) -> None:
    with pytest.raises(UnavailableError, match="liburing-dev"):
        choose_ring("io_uring", 64)


def test_threads_that_were_asked_for_are_no_downgrade() -> None:
    ring = choose_ring("threads", 64)
    assert ring.features.backend == "threads"
    assert ring.features.notes == [], "nothing else was asked for"
    ring.close()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match='"auto", "io_uring" or "threads"'):
        choose_ring("aio", 64)  # type: ignore[arg-type]


def test_everything_works_without_io_uring(run_python: RunPython, tmp_path: Path) -> None:
    """The whole way, where the kernel refuses: threads, and the reason in the features."""
    code = """
import sys, trio, uringio
async def main():
    async with uringio.open_ring(slots=2) as ring:
        assert ring.features.backend == "threads"
        assert any("EPERM" in note for note in ring.features.notes), ring.features.notes
        async with ring.create(sys.argv[1]) as writer:
            await writer.write(b"hello")
            receipt = await writer.commit()
    assert receipt.backend == "threads" and not receipt.registered
    assert open(sys.argv[1], "rb").read() == b"hello"
    try:
        async with uringio.open_ring(slots=2, backend="io_uring"):
            raise AssertionError
    except uringio.UnavailableError as exc:
        assert "seccomp" in str(exc) or "sysctl" in str(exc)
trio.run(main)
"""
    inject = ("-e", "inject=io_uring_setup:error=EPERM")
    run_python(code, tmp_path / "new", prefix=(*STRACE, "-o", "/dev/null", *inject))
