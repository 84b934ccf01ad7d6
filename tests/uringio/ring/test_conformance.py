"""What every ring does alike: io_uring, threads, simulated."""

from __future__ import annotations

import errno
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from uringio.exceptions import ClosedError, ForkedError, WrongThreadError
from uringio.lowlevel import BufferPool, Opcode, Operation, RingLike, operations

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunPython
    from tests.uringio.conftest import Finish


def test_a_write_puts_its_bytes_at_its_offset(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    token = ring.prepare(operations.write(descriptor, b"hello", 3, 5))
    assert finish(ring) == {token: 5}
    assert os.pread(descriptor, 100, 0) == b"\0\0\0hello"


def test_length_bounds_what_is_written_of_the_memory(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    ring.prepare(operations.write(descriptor, b"hello", 0, 2))
    finish(ring)
    assert os.pread(descriptor, 100, 0) == b"he"


def test_a_read_fills_its_memory_and_is_short_at_the_end(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    os.pwrite(descriptor, b"0123456789", 0)
    memory = bytearray(8)
    token = ring.prepare(operations.read(descriptor, memory, 4, 8))
    assert finish(ring) == {token: 6}
    assert memory == b"456789\0\0"


def test_a_registered_slot_is_written_and_read_back(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    pool = BufferPool(2, 4096)
    ring.register(pool)
    for index, slot in enumerate(pool.slots):
        slot.memory[:] = bytes([index + 1]) * 4096
        ring.prepare(
            operations.write(
                descriptor, slot.memory, index * 4096, 4096, buffer_index=slot.buffer_index
            )
        )
    assert set(finish(ring).values()) == {4096}
    slot = pool.slots[0]
    ring.prepare(
        operations.read(descriptor, slot.memory, 4096, 4096, buffer_index=slot.buffer_index)
    )
    finish(ring)
    assert slot.memory == b"\2" * 4096
    ring.close()
    pool.close()


@pytest.mark.parametrize("data_only", [False, True])
def test_fsync_answers_0(
    ring: RingLike, finish: Finish, descriptor: int, *, data_only: bool
) -> None:
    token = ring.prepare(operations.fsync(descriptor, data_only=data_only))
    assert finish(ring) == {token: 0}


def test_fallocate_reserves_and_ftruncate_gives_back(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    token = ring.prepare(operations.fallocate(descriptor, 4096, 8192))
    assert finish(ring) == {token: 0}
    assert os.fstat(descriptor).st_size == 12288
    assert os.fstat(descriptor).st_blocks * 512 >= 8192
    if not ring.supports(Opcode.FTRUNCATE):
        pytest.skip("this kernel's io_uring has no FTRUNCATE (Linux 6.9)")
    token = ring.prepare(operations.ftruncate(descriptor, 5))
    assert finish(ring) == {token: 0}
    assert os.fstat(descriptor).st_size == 5


def test_files_are_opened_and_closed(ring: RingLike, finish: Finish, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    token = ring.prepare(operations.open_at(directory, "new", os.O_RDWR | os.O_CREAT, 0o640))
    fd = finish(ring)[token]
    assert fd >= 0
    assert os.fstat(fd).st_mode & 0o777 == 0o640
    assert not os.get_inheritable(fd)
    token = ring.prepare(operations.close(fd))
    assert finish(ring) == {token: 0}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    os.close(directory)


def test_names_are_made_linked_renamed_and_removed(
    ring: RingLike, finish: Finish, tmp_path: Path
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "a").write_bytes(b"a")
    for operation in (
        operations.make_directory(directory, "sub", 0o755),
        operations.link(directory, "a", directory, "sub/b"),
        operations.rename(directory, "sub/b", directory, "c", replace=False),
        operations.unlink(directory, "a"),
    ):
        token = ring.prepare(operation)
        assert finish(ring) == {token: 0}, operation
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c", "sub"]
    assert list((tmp_path / "sub").iterdir()) == []
    assert (tmp_path / "c").read_bytes() == b"a"
    os.close(directory)


def test_rename_replaces_only_when_asked(ring: RingLike, finish: Finish, tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    token = ring.prepare(operations.rename(directory, "new", directory, "old", replace=False))
    assert finish(ring) == {token: -errno.EEXIST}
    assert (tmp_path / "old").read_bytes() == b"old"
    token = ring.prepare(operations.rename(directory, "new", directory, "old", replace=True))
    assert finish(ring) == {token: 0}
    assert (tmp_path / "old").read_bytes() == b"new"
    os.close(directory)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "link", "sub/../../outside"])
def test_open_beneath_never_leaves_its_directory(
    ring: RingLike, finish: Finish, tmp_path: Path, path: str
) -> None:
    (tmp_path / "outside").write_bytes(b"")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "link").symlink_to("sub")
    (inside / "sub" / "file").write_bytes(b"")
    directory = os.open(inside, os.O_RDONLY)
    refused = ring.prepare(operations.open_beneath(directory, path, os.O_RDONLY))
    opened = ring.prepare(operations.open_beneath(directory, "sub/file", os.O_RDONLY))
    results = finish(ring)
    assert results[refused] in {-errno.EXDEV, -errno.ELOOP}
    assert results[opened] >= 0
    os.close(results[opened])
    os.close(directory)


def test_errors_come_as_negative_numbers(
    ring: RingLike, finish: Finish, descriptor: int, tmp_path: Path
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    expected = {
        ring.prepare(operations.write(999_999, b"x", 0, 1)): -errno.EBADF,
        ring.prepare(operations.fsync(999_999)): -errno.EBADF,
        ring.prepare(operations.close(999_999)): -errno.EBADF,
        ring.prepare(operations.open_at(directory, "none", os.O_RDONLY)): -errno.ENOENT,
        ring.prepare(operations.unlink(directory, "none")): -errno.ENOENT,
        ring.prepare(operations.make_directory(directory, "file", 0o755)): -errno.EEXIST,
        ring.prepare(operations.link(directory, "none", directory, "x")): -errno.ENOENT,
        ring.prepare(operations.fallocate(descriptor, 0, 0)): -errno.EINVAL,
    }
    assert finish(ring) == expected
    os.close(directory)


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 2])
def test_an_offset_beyond_what_a_file_has_is_an_error_and_not_a_hang(
    ring: RingLike, finish: Finish, descriptor: int, offset: int
) -> None:
    token = ring.prepare(operations.write(descriptor, b"x", offset, 1))
    assert finish(ring)[token] < 0


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    """The kernel would take the name before it: another file."""
    for make in (operations.open_at, operations.open_beneath):
        with pytest.raises(ValueError, match="null"):
            make(0, "name\0more", os.O_RDONLY)
    with pytest.raises(ValueError, match="null"):
        operations.rename(0, "a", 0, "b\0c", replace=True)
    with pytest.raises(ValueError, match="null"):
        operations.link(0, "a", 0, "b\0c")
    with pytest.raises(ValueError, match="null"):
        operations.unlink(0, "b\0c")
    with pytest.raises(ValueError, match="null"):
        operations.make_directory(0, "b\0c", 0o755)


def test_a_read_into_immutable_memory_is_refused() -> None:
    with pytest.raises(TypeError, match="writable"):
        operations.read(0, b"constant", 0, 8)


def test_a_chain_runs_in_order(ring: RingLike, finish: Finish, descriptor: int) -> None:
    tokens = ring.prepare_chain([operations.write(descriptor, bytes([i]), 0, 1) for i in range(20)])
    assert finish(ring) == dict.fromkeys(tokens, 1)
    assert os.pread(descriptor, 10, 0) == bytes([19])


def test_an_error_cancels_what_is_linked_behind_it(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    tokens = ring.prepare_chain(
        [
            operations.write(descriptor, b"a", 0, 1),
            operations.fsync(999_999),
            operations.write(descriptor, b"b", 1, 1),
            operations.fsync(descriptor),
        ]
    )
    other = ring.prepare(operations.write(descriptor, b"c", 2, 1))
    assert finish(ring) == {
        tokens[0]: 1,
        tokens[1]: -errno.EBADF,
        tokens[2]: -errno.ECANCELED,
        tokens[3]: -errno.ECANCELED,
        other: 1,
    }
    assert os.pread(descriptor, 10, 0) == b"a\0c"


def test_a_short_read_cancels_what_is_linked_behind_it(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    os.pwrite(descriptor, b"123", 0)
    tokens = ring.prepare_chain(
        [operations.read(descriptor, bytearray(8), 0, 8), operations.write(descriptor, b"x", 0, 1)]
    )
    assert finish(ring) == {tokens[0]: 3, tokens[1]: -errno.ECANCELED}
    assert os.pread(descriptor, 10, 0) == b"123"


@pytest.mark.parametrize("kind", ["io_uring", "threads", "simulated-0"])
def test_a_short_write_cancels_what_is_linked_behind_it(
    run_python: RunPython, tmp_path: Path, kind: str, new_ring: object
) -> None:
    """Real short writes: the file size limit cuts the write that would cross it."""
    code = """
import errno, os, resource, select, signal, sys
from uringio.lowlevel import ThreadRing, UringRing, operations
from uringio.testing import SimulatedRing
ring = {"io_uring": UringRing, "threads": ThreadRing, "simulated-0": SimulatedRing}[sys.argv[2]]()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
tokens = ring.prepare_chain([
    operations.write(fd, bytes(8192), 0, 8192), operations.fsync(fd), operations.fsync(fd)])
late = ring.prepare(operations.write(fd, b"x", 6000, 1))
results = {}
while ring.in_flight:
    while ring.submit():
        pass
    select.select([ring.wakeup_fd], [], [])
    results.update(ring.reap())
assert results == {tokens[0]: 5000, tokens[1]: -errno.ECANCELED, tokens[2]: -errno.ECANCELED,
                   late: -errno.EFBIG}, results
"""
    if kind == "io_uring":
        new_ring(kind)  # type: ignore[operator]  # skips where there is none
    run_python(code, tmp_path / "limited", kind)


def test_tokens_are_counted_up_and_never_used_twice(ring: RingLike, finish: Finish) -> None:
    seen: list[int] = []
    for _ in range(50):
        seen.append(ring.prepare(Operation(Opcode.NOP)))
        seen.extend(ring.prepare_chain([Operation(Opcode.NOP)] * 3))
        ring.cancel(seen[-1])
        finish(ring)
    assert seen == sorted(set(seen))


def test_a_chain_that_cannot_be_taken_leaves_nothing_behind(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    """All or none: a head left alone would be linked to a stranger."""
    with pytest.raises(ValueError, match="a chain has"):
        ring.prepare_chain([])
    with pytest.raises(ValueError, match="a chain has"):
        ring.prepare_chain([Operation(Opcode.NOP)] * 257)
    assert ring.in_flight == ring.prepared == 0
    token = ring.prepare(operations.write(descriptor, b"x", 0, 1))
    assert finish(ring) == {token: 1}


def test_cancel_of_a_finished_or_unknown_token_is_harmless(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    token = ring.prepare(Operation(Opcode.NOP))
    finish(ring)
    ring.cancel(token)
    ring.cancel(987_654)
    other = ring.prepare(operations.write(descriptor, b"x", 0, 1))
    assert finish(ring) == {other: 1}


def test_a_cancelled_operation_completes_once_whether_it_was_hit_or_not(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    tokens = [ring.prepare(operations.write(descriptor, b"x", i, 1)) for i in range(50)]
    for token in tokens[::2]:
        ring.cancel(token)
        ring.cancel(token)
    ring.submit()
    for token in tokens[1::2]:
        ring.cancel(token)
    results = finish(ring)
    assert sorted(results) == tokens
    assert set(results.values()) <= {1, -errno.ECANCELED}
    assert ring.in_flight == 0


def test_a_cancelled_member_cancels_the_rest_of_its_chain(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    chains = [
        ring.prepare_chain([operations.write(descriptor, b"x", i, 1) for i in range(3)])
        for _ in range(30)
    ]
    ring.submit()
    for chain in chains:
        for token in chain:
            ring.cancel(token)
    results = finish(ring)
    assert sorted(results) == [token for chain in chains for token in chain]
    assert ring.in_flight == 0
    for chain in chains:
        outcome = [results[token] for token in chain]
        assert outcome == sorted(outcome, reverse=True), "nothing runs behind a cancelled member"


def test_what_is_withdrawn_before_the_submit_was_never_prepared(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    first = ring.prepare(operations.write(descriptor, b"1", 0, 1))
    gone = ring.prepare(operations.write(descriptor, b"-", 1, 1))
    chain = ring.prepare_chain([operations.write(descriptor, b"-", at, 1) for at in (2, 3)])
    last = ring.prepare(operations.write(descriptor, b"5", 4, 1))
    assert ring.withdraw(chain)
    assert ring.withdraw((gone,))
    assert (ring.in_flight, ring.prepared) == (2, 2)
    assert not ring.withdraw((gone,)), "once"
    assert finish(ring) == {first: 1, last: 1}
    assert os.pread(descriptor, 10, 0) == b"1\0\0\0" + b"5"


def test_what_was_submitted_cannot_be_withdrawn(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    token = ring.prepare(operations.write(descriptor, b"x", 0, 1))
    while ring.submit():
        pass
    other = ring.prepare(Operation(Opcode.NOP))
    assert not ring.withdraw((token,))
    assert finish(ring) == {token: 1, other: 0}
    assert not ring.withdraw((other,))


def test_memory_that_is_withdrawn_is_the_caller_s_again(ring: RingLike, descriptor: int) -> None:
    memory = bytearray(b"mine")
    token = ring.prepare(operations.write(descriptor, memory, 0, 4))
    assert ring.withdraw((token,))
    memory.extend(b"!")  # a BufferError where the ring still holds it


def test_more_can_be_prepared_than_the_queue_is_deep(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    count = 10 * ring.features.entries
    tokens = [
        ring.prepare(operations.write(descriptor, bytes([i % 251]), i, 1)) for i in range(count)
    ]
    assert ring.in_flight == count
    assert finish(ring) == dict.fromkeys(tokens, 1)
    assert os.pread(descriptor, count + 1, 0) == bytes(i % 251 for i in range(count))


@pytest.mark.parametrize("kind", ["io_uring", "threads", "simulated-3"])
def test_more_completions_than_the_completion_queue_holds_are_not_lost(
    new_ring: object, finish: Finish, kind: str
) -> None:
    ring: RingLike = new_ring(kind, 8)  # type: ignore[operator]
    tokens = []
    for _ in range(200):
        tokens += [ring.prepare(Operation(Opcode.NOP)) for _ in range(8)]
        ring.submit()
    assert finish(ring) == dict.fromkeys(tokens, 0)


def test_many_publish_chains_at_once_all_complete(
    ring: RingLike, finish: Finish, tmp_path: Path
) -> None:
    """Links make deferred work without completions: a reaper that stops early hangs here."""
    directory = os.open(tmp_path, os.O_RDONLY)
    files = [
        os.open(f"{i}.part", os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=directory)
        for i in range(64)
    ]
    expected: dict[int, int] = {}
    for i, fd in enumerate(files):
        tokens = ring.prepare_chain(
            [
                operations.write(fd, b"%d" % i, 0, len(str(i))),
                operations.fsync(fd),
                operations.rename(directory, f"{i}.part", directory, f"{i}", replace=False),
            ]
        )
        expected |= dict(zip(tokens, (len(str(i)), 0, 0), strict=True))
    assert finish(ring) == expected
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {
        str(i): b"%d" % i for i in range(64)
    }
    for fd in (*files, directory):
        os.close(fd)


def test_in_flight_counts_from_prepare_until_reap(ring: RingLike, finish: Finish) -> None:
    ring.prepare(Operation(Opcode.NOP))
    ring.prepare_chain([Operation(Opcode.NOP)] * 2)
    assert (ring.in_flight, ring.prepared) == (3, 3)
    while ring.submit():
        pass
    assert (ring.in_flight, ring.prepared) == (3, 0)
    finish(ring)
    assert (ring.in_flight, ring.prepared) == (0, 0)


def test_submit_and_reap_of_nothing_are_harmless(ring: RingLike) -> None:
    assert ring.submit() == 0
    assert ring.reap() == []


def test_a_ring_holds_the_memory_of_what_is_in_flight(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    """The caller's reference is gone before the submit; the bytes must be right all the same."""
    rng = random.Random(1)
    expected = b""
    for i in range(64):
        data = rng.randbytes(4096)
        expected += data
        ring.prepare(operations.write(descriptor, bytearray(data), i * 4096, 4096))
    finish(ring)
    assert os.pread(descriptor, len(expected) + 1, 0) == expected


def test_another_thread_is_refused(ring: RingLike) -> None:
    refused: list[type[BaseException]] = []

    def use() -> None:
        for call in (
            lambda: ring.prepare(Operation(Opcode.NOP)),
            lambda: ring.prepare_chain([Operation(Opcode.NOP)]),
            lambda: ring.cancel(1),
            ring.submit,
            ring.reap,
        ):
            try:
                call()
            except WrongThreadError as exc:
                refused.append(type(exc))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(refused) == 5


def test_a_closed_ring_says_so_and_closing_again_is_harmless(ring: RingLike) -> None:
    ring.close()
    ring.close()
    with pytest.raises(ClosedError):
        ring.prepare(Operation(Opcode.NOP))
    with pytest.raises(ClosedError):
        ring.submit()
    with pytest.raises(ClosedError):
        ring.reap()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(
    ring: RingLike, finish: Finish, descriptor: int
) -> None:
    token = ring.prepare(operations.write(descriptor, b"parent", 0, 6))
    child = os.fork()
    if child == 0:  # no exception may leave this block: it would run the rest of the tests again
        refused = 0
        for call in (lambda: ring.prepare(Operation(Opcode.NOP)), ring.submit, ring.reap):
            try:
                call()
            except ForkedError as exc:
                refused += str(os.getppid()) in str(exc)
        ring.close()
        os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert finish(ring) == {token: 6}


def test_close_gives_every_descriptor_back(
    new_ring: object, finish: Finish, count_descriptors: object
) -> None:
    for kind in ("io_uring", "threads", "simulated-0"):
        before = count_descriptors()  # type: ignore[operator]
        ring: RingLike = new_ring(kind)  # type: ignore[operator]
        ring.prepare(Operation(Opcode.NOP))
        finish(ring)
        ring.close()
        assert count_descriptors() == before  # type: ignore[operator]
