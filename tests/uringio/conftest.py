"""Rings of every kind, for tests that hold them against one another."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

import uringio
from uringio import _binding
from uringio._ring import beside
from uringio.lowlevel import RingLike, ThreadRing, UringRing, run_ring
from uringio.testing import Fault, SimulatedRing

STUCK_MS = 30_000
"""A ring that wakes nobody for so long never will."""

SLOT_BYTES = 16 << 10
SLOTS = 4

PROBE = uringio.probe()

Finish = Callable[[RingLike], dict[int, int]]


class OpenAny(Protocol):
    def __call__(
        self,
        slots: int = SLOTS,
        slot_bytes: int = SLOT_BYTES,
        *,
        faults: Sequence[Fault] = (),
    ) -> AbstractAsyncContextManager[uringio.Ring]: ...


def skip_unless_there_is(kind: str) -> None:
    """In a fixture and not in an async test, where the reason would not be shown."""
    if kind == "io_uring" and not PROBE.available:
        pytest.skip(PROBE.reason)


def make_ring(kind: str, entries: int = 256, faults: Sequence[Fault] = ()) -> RingLike:
    if kind == "io_uring":
        return UringRing(entries)
    if kind == "threads":
        return ThreadRing(entries)
    name, _, seed = kind.partition("-")
    assert name == "simulated"
    return SimulatedRing(int(seed), faults=faults, entries=entries)


@pytest.fixture
def new_ring() -> Iterator[Callable[..., RingLike]]:
    """Make rings of a kind; they are closed when the test is over."""
    rings: list[RingLike] = []

    def new(kind: str, entries: int = 256) -> RingLike:
        skip_unless_there_is(kind)
        rings.append(make_ring(kind, entries))
        return rings[-1]

    yield new
    for ring in rings:
        ring.close()


@pytest.fixture(params=["io_uring", "threads", "simulated-0", "simulated-1", "simulated-2"])
def ring(request: pytest.FixtureRequest, new_ring: Callable[..., RingLike]) -> RingLike:
    """A ring of every kind."""
    return new_ring(request.param)


@pytest.fixture
def uring(new_ring: Callable[..., RingLike]) -> RingLike:
    return new_ring("io_uring")


@pytest.fixture
def finish() -> Finish:
    """Submit what is prepared and reap until nothing is in flight: results by token."""

    def run(ring: RingLike) -> dict[int, int]:
        results: dict[int, int] = {}
        poll = select.poll()
        poll.register(ring.wakeup_fd, select.POLLIN)
        while True:
            left = ring.submit()
            for token, result in ring.reap():
                assert token not in results, "an operation completes once"
                results[token] = result
            if not ring.in_flight:
                return results
            if not left and not ring.prepared:  # a reap may prepare the next of many writes
                assert poll.poll(STUCK_MS), f"nobody was woken for {ring.in_flight} operations"

    return run


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """An empty buffered file, open for reading and writing."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(fd)


@pytest.fixture(params=["io_uring", "threads", "simulated-0", "simulated-1", "simulated-2"])
def open_any(request: pytest.FixtureRequest) -> OpenAny:
    """Open a Ring over a raw ring of every kind, with a small pool."""
    return opener(request.param)


@pytest.fixture(params=["io_uring", "threads"])
def open_real(request: pytest.FixtureRequest) -> OpenAny:
    """Open a Ring over every kind that is not simulated."""
    return opener(request.param)


@pytest.fixture
def open_uring() -> OpenAny:
    return opener("io_uring")


@pytest.fixture
def open_simulated() -> Callable[..., AbstractAsyncContextManager[uringio.Ring]]:
    """Open a Ring over a simulated ring of the caller's own making."""

    def open_it(
        raw: RingLike, slots: int = SLOTS, slot_bytes: int = SLOT_BYTES
    ) -> AbstractAsyncContextManager[uringio.Ring]:
        return run_ring(raw, slots, slot_bytes)

    return open_it


def opener(kind: str) -> OpenAny:
    skip_unless_there_is(kind)

    @contextlib.asynccontextmanager
    async def open_it(
        slots: int = SLOTS, slot_bytes: int = SLOT_BYTES, *, faults: Sequence[Fault] = ()
    ) -> AsyncIterator[uringio.Ring]:
        async with run_ring(make_ring(kind, faults=faults), slots, slot_bytes) as opened:
            yield opened
            statistics = opened.statistics()
            if not statistics.in_flight:
                assert statistics.free_slots == slots, "a slot was not given back"
        assert opened.statistics().in_flight == 0

    return open_it


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """A directory on tmpfs."""
    base = Path("/dev/shm")
    if not base.is_dir() or "tmpfs" not in _file_system_of(base):
        pytest.skip("/dev/shm is no tmpfs here")
    path = base / f"uringio-test-{os.getpid()}"
    path.mkdir()
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def _file_system_of(path: Path) -> str:
    mounts = Path("/proc/mounts").read_text().splitlines()
    return next((line.split()[2] for line in mounts if line.split()[1] == str(path)), "")


@pytest.fixture
def no_sparse_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a kernel before 5.19, for rings whose memory is registered from now on."""
    real = _binding.lib

    class Older:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def io_uring_register_buffers_sparse(self, _ring: Any, _count: int) -> int:
            return -errno.EINVAL

    monkeypatch.setattr(beside, "lib", Older())
