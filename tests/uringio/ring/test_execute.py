"""Operations as system calls, and what breaks a chain."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import pytest

from uringio._ring import execute as module
from uringio._ring import libc
from uringio._ring.execute import breaks_chain, execute, execute_chain
from uringio.lowlevel import Opcode, Operation, ThreadRing, operations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_opcode_but_cancel_has_a_system_call() -> None:
    assert set(Opcode) - set(module.CALLS) == {Opcode.ASYNC_CANCEL}


def test_every_opcode_has_a_name_for_errors() -> None:
    assert set(operations.NAMES) == set(Opcode)


@pytest.mark.parametrize(
    ("operation", "result", "broken"),
    [
        (Operation(Opcode.NOP), 0, False),
        (Operation(Opcode.FSYNC), -errno.EIO, True),
        (operations.write(0, b"12", 0, 2), 2, False),
        (operations.write(0, b"12", 0, 2), 1, True),
        (operations.write(0, b"12", 0, 2), 0, True),
        (Operation(Opcode.OPENAT), 7, False),
    ],
)
def test_errors_and_short_results_break_a_chain(
    operation: Operation, result: int, *, broken: bool
) -> None:
    assert breaks_chain(operation, result) == broken


def test_what_stands_behind_an_error_is_not_done(descriptor: int) -> None:
    results = execute_chain([operations.fsync(999_999), operations.write(descriptor, b"x", 0, 1)])
    assert results == [-errno.EBADF, -errno.ECANCELED]
    assert os.fstat(descriptor).st_size == 0


@pytest.mark.parametrize("path", ["sub/file", "file2", "."])
def test_open_beneath_without_openat2_walks_to_the_same_file(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    count_descriptors: Callable[[], int],
    path: str,
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"inside")
    (tmp_path / "file2").write_bytes(b"2")
    directory = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(module, "IS_LINUX", False)
    before = count_descriptors()
    fd = execute(operations.open_beneath(directory, path, os.O_RDONLY))
    assert fd >= 0
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / path))
    os.close(fd)
    assert count_descriptors() == before
    os.close(directory)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "link", "link/file", "sub/../../outside", "sub/..", ""]
)
def test_open_beneath_without_openat2_never_leaves_its_directory(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    count_descriptors: Callable[[], int],
    path: str,
) -> None:
    (tmp_path / "outside").write_bytes(b"")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "file").write_bytes(b"")
    (inside / "link").symlink_to("sub")
    directory = os.open(inside, os.O_RDONLY)
    monkeypatch.setattr(module, "IS_LINUX", False)
    before = count_descriptors()
    assert execute(operations.open_beneath(directory, path, os.O_RDONLY)) < 0
    assert count_descriptors() == before
    os.close(directory)


def test_a_function_the_c_library_lacks_answers_enosys() -> None:
    assert libc._call("no_such_function", 1) == -errno.ENOSYS


def test_direct_alignment_is_a_power_of_two_or_nothing(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    said = libc.statx_direct_alignment(fd)
    if said is None:
        pytest.skip("statx says nothing of direct I/O here (Linux 6.1)")
    assert all(value & (value - 1) == 0 for value in said)
    assert libc.statx_direct_alignment(999_999) is None
    os.close(fd)


def test_the_thread_ring_cancels_what_no_thread_has_begun(descriptor: int) -> None:
    ring = ThreadRing()
    started, block = threading.Barrier(5), threading.Event()
    for _ in range(4):
        ring._pool.submit(lambda: (started.wait(), block.wait()))
    started.wait()
    chain = ring.prepare_chain(
        [operations.write(descriptor, b"x", 0, 1), operations.fsync(descriptor)]
    )
    ring.submit()
    for token in (*chain, *chain):
        ring.cancel(token)
    block.set()
    assert sorted(ring.reap()) == [(token, -errno.ECANCELED) for token in chain]
    assert ring.in_flight == 0
    ring.close()
    assert os.fstat(descriptor).st_size == 0


def test_promises_that_the_system_has_no_call_for_are_refused(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    monkeypatch.setattr(module, "HAS_WRITE_FLAGS", False)
    assert execute(operations.write(descriptor, b"x", 0, 1, flags=2)) == -errno.EOPNOTSUPP
    assert execute(operations.write(descriptor, b"x", 0, 1)) == 1


def test_where_there_is_an_fsync_down_to_the_disk_it_is_that_which_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    """As macOS has it. Here another number stands for it, which the kernel knows."""

    def stops_at_the_cache(_fd: int) -> None:
        raise AssertionError("fsync(2) was asked")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", fcntl.F_GETFD, raising=False)
    monkeypatch.setattr(os, "fsync", stops_at_the_cache)
    assert execute(operations.fsync(descriptor)) == 0
    assert execute(operations.fsync(999_999)) == -errno.EBADF
