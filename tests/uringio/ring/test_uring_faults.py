"""Calls of the ring that the kernel refuses, and batches that it takes in part, call by call.

Refusals come from strace; a batch is stopped by an index in the kernel's queue that is none.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from uringio import _binding
from uringio._ring.uring import IOSQE_IO_LINK
from uringio.lowlevel import RingLike, UringRing, operations

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunPython
    from tests.uringio.conftest import Finish

NewRing = Callable[..., UringRing]

SLOTS_MAX = 16_384


@pytest.fixture(autouse=True)
def needs_io_uring(uring: RingLike) -> None:
    """Skip visibly where there is no io_uring."""


class Batch:
    """Operations that the kernel takes in part: it stops where a place of its queue names no SQE.

    That is what an index beyond the queue is to it (io_uring_setup(2)): it drops that operation,
    which never completes, and leaves what is behind it for the next submit. A kernel that has no
    memory for a request stops in the same way.
    """

    def __init__(self, ring: UringRing, directory: Path) -> None:
        self.ring = ring
        self.fd = os.open(directory, os.O_RDONLY)
        # The head of struct io_uring: khead, ktail, mask, entries, flags, dropped, array.
        self._places = _binding.ffi.cast("unsigned **", ring._ring)[6]

    def add(self, name: str, *, linked: bool) -> int:
        """Have a directory made; the result is the token."""
        operation = operations.make_directory(self.fd, name, 0o700)
        return self.ring._add(operation, IOSQE_IO_LINK if linked else 0)

    def submit_and_stop_at(self, place: int, token: int) -> None:
        """Submit all, of which the operation at `place` gets lost."""
        self._places[place] = 1 << 20
        assert self.ring.submit() == 0, "all of it was handed over"
        self._places[place] = place
        del self.ring._held[token]


@pytest.fixture
def batch(new_ring: NewRing, tmp_path: Path) -> Iterator[Batch]:
    made = Batch(new_ring("io_uring", 8), tmp_path)
    yield made
    os.close(made.fd)


def test_the_tail_of_a_chain_that_was_cut_is_not_done(
    batch: Batch, finish: Finish, tmp_path: Path
) -> None:
    """What is handed over again would start as if nothing had stood before it."""
    first, lost, behind = (batch.add(name, linked=True) for name in ("first", "lost", "behind"))
    last = batch.add("last", linked=False)
    other = batch.add("other", linked=False)
    batch.submit_and_stop_at(1, lost)
    results = finish(batch.ring)
    assert set(results) == {first, behind, last, other}
    assert results[behind] in {-errno.EINVAL, -errno.ECANCELED}
    assert results[last] in {-errno.EINVAL, -errno.ECANCELED}
    assert (results[first], results[other]) == (0, 0)
    assert sorted(os.listdir(tmp_path)) == ["first", "other"]


def test_a_chain_without_an_end_is_failed_up_to_the_last_that_is_there(
    batch: Batch, finish: Finish, tmp_path: Path
) -> None:
    """Rings hand over whole chains; C looks no further than its queue all the same."""
    first, lost, behind = (batch.add(name, linked=True) for name in ("first", "lost", "behind"))
    batch.submit_and_stop_at(1, lost)
    assert finish(batch.ring) == {first: 0, behind: -errno.EINVAL}
    other = batch.add("other", linked=False)
    assert finish(batch.ring) == {other: 0}
    assert sorted(os.listdir(tmp_path)) == ["first", "other"]


def test_what_stands_behind_a_stop_between_two_is_done(
    batch: Batch, finish: Finish, tmp_path: Path
) -> None:
    first, lost, other = (batch.add(name, linked=False) for name in ("first", "lost", "other"))
    batch.submit_and_stop_at(1, lost)
    assert finish(batch.ring) == {first: 0, other: 0}
    assert sorted(os.listdir(tmp_path)) == ["first", "other"]


@pytest.mark.parametrize(
    ("count", "number"), [(0, errno.EINVAL), (SLOTS_MAX + 1, errno.EINVAL), (1, errno.EFAULT)]
)
def test_slots_that_cannot_be_registered_are_told(
    uring: UringRing, count: int, number: int
) -> None:
    """At the address 4,096 there is no memory."""
    assert _binding.lib.uringio_register_slots(uring._ring, -1, 4096, 4096, count) == -number


NO_MEMORY = """
import ctypes, errno, resource
from uringio import _binding
from uringio.lowlevel import UringRing
ring = UringRing(8)
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1, hard))
while malloc(16 * 16_384):
    pass
result = _binding.lib.uringio_register_slots(ring._ring, -1, 4096, 4096, 16_384)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
print(errno.errorcode[-result])
"""


def test_slots_for_which_no_memory_is_left_are_told(run_python: RunPython) -> None:
    assert run_python(NO_MEMORY).stdout == "ENOMEM\n"


def injected(what: str) -> tuple[str, ...]:
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={what}")


NO_PROBE = """
from uringio.exceptions import UnavailableError
from uringio.lowlevel import UringRing
try:
    UringRing(8)
except UnavailableError as exc:
    print(exc)
"""


def test_a_kernel_that_does_not_say_what_it_has_is_not_used(run_python: RunPython) -> None:
    """IORING_REGISTER_PROBE is from 5.6; the call before it registers the eventfd."""
    done = run_python(NO_PROBE, prefix=injected("io_uring_register:error=EINVAL:when=2"))
    assert done.stdout.startswith("no io_uring (ENOSYS): this kernel")


NOTHING_TAKEN = """
import select
from uringio.lowlevel import Opcode, Operation, UringRing
ring = UringRing(8)
token = ring.prepare(Operation(Opcode.NOP))
assert ring.submit() == 1, "it is still to be handed over"
assert ring.submit() == 0
select.select([ring.wakeup_fd], [], [])
assert ring.reap() == [(token, 0)]
"""


def test_a_submit_that_takes_nothing_is_asked_again_later(run_python: RunPython) -> None:
    run_python(NOTHING_TAKEN, prefix=injected("io_uring_enter:retval=0:when=1"))


# A completion that is there, and one that the kernel has still to be asked for: then the second
# enter of the process is the one that asks.
HALF_REAPED = """
import os, select, sys
from uringio.exceptions import BrokenError
from uringio.lowlevel import Opcode, Operation, UringRing, operations
ring = UringRing(8)
reader, writer = os.pipe()
there = ring.prepare(Operation(Opcode.NOP)) if sys.argv[1] == "there" else None
asked_for = ring.prepare(operations.read(reader, bytearray(1), 0, 1))
assert ring.submit() == 0
if there:
    os.eventfd_read(ring.wakeup_fd)
os.write(writer, b"x")
select.select([ring.wakeup_fd], [], [])
for _ in range(3):
    try:
        print(sorted((token - asked_for, result) for token, result in ring.reap()))
    except BrokenError as exc:
        print(exc)
print(ring.counts.retries)
"""


@pytest.mark.parametrize(
    ("inject", "there", "printed"),
    [
        ("error=EBADF:when=2", "there", ["[(-1, 0)]", "[(0, 1)]", "[]", "0"]),
        (
            "error=EBADF:when=2",
            "none",
            ["completions cannot be reaped: Bad file descriptor", "[(0, 1)]", "[]", "0"],
        ),
        ("error=EINTR:when=2..65", "there", ["[(-1, 0)]", "[(0, 1)]", "[]", "64"]),
        ("error=EAGAIN:when=2..3", "none", ["[(0, 1)]", "[]", "[]", "2"]),
    ],
    ids=["behind a completion", "before any", "for all rounds", "for a while"],
)
def test_completions_that_the_kernel_does_not_give_at_once_are_not_lost(
    run_python: RunPython, inject: str, there: str, printed: list[str]
) -> None:
    """A reap ends after a bounded number of rounds, so that others get their turn."""
    done = run_python(HALF_REAPED, there, prefix=injected(f"io_uring_enter:{inject}"))
    assert done.stdout.splitlines() == printed
