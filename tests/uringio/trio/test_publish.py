"""Publishing: the order of calls is the promise."""
# An `async with` that raises is more than one statement.

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

import uringio
from uringio.exceptions import OperationError, TargetExistsError
from uringio.lowlevel import Opcode, Operation, Place, operations, publish_steps, run_steps
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringio.conftest import OpenAny
    from uringio._trio.publish import Durability

OpenRaw = Callable[..., AbstractAsyncContextManager[uringio.Ring]]

SLOT = 16 << 10
MUTATIONS = {Opcode.WRITE, Opcode.WRITE_FIXED, Opcode.FTRUNCATE, Opcode.FALLOCATE}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Place, Place, int]]:
    """A source with content, its target's place and its descriptor."""
    directory = os.open(tmp_path, os.O_RDONLY)
    fd = os.open(tmp_path / "source", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"new", 0)
    yield Place(directory, "source", "source"), Place(directory, "target", "target"), fd
    os.close(fd)
    os.close(directory)


def steps(
    place: tuple[Place, Place, int], *, overwrite: bool = False, durability: str = "published"
) -> list[Operation]:
    source, target, fd = place
    built = publish_steps(
        fd,
        source,
        target,
        tail=None,
        cut_to=3,
        overwrite=overwrite,
        durability=durability,  # type: ignore[arg-type]
    )
    return [step.operation for step in built]


def held_against_the_law(history: Sequence[tuple[Operation, int]], size: int) -> None:
    """Fsync after the last write's completion, rename after fsync, the directory's fsync last."""
    done = [(operation, result) for operation, result in history if result >= 0]
    kinds = [operation.opcode for operation, _ in done]
    (rename,) = (i for i, kind in enumerate(kinds) if kind is Opcode.RENAMEAT)
    renamed = done[rename][0]
    writes = [i for i, (op, _) in enumerate(done) if op.opcode in MUTATIONS]
    if writes:
        fd = done[writes[-1]][0].fd
        assert {done[i][0].fd for i in writes} == {fd}
        assert writes[-1] < rename
        assert any(
            kind is Opcode.FSYNC and done[i][0].fd == fd and writes[-1] < i < rename
            for i, kind in enumerate(kinds)
        ), "no fsync between the last write and the rename"
    last_sync = max(i for i, kind in enumerate(kinds) if kind is Opcode.FSYNC)
    assert last_sync > rename
    assert done[last_sync][0].fd == renamed.other_fd, "the directory's"
    assert set(kinds[last_sync + 1 :]) <= {Opcode.CLOSE}
    assert size >= 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [0, 1, 4096, SLOT, 5 * SLOT, 5 * SLOT + 77])
async def test_the_order_of_calls_is_law(
    open_simulated: OpenRaw, tmp_path: Path, seed: int, size: int
) -> None:
    shorts = [Fault(Opcode.WRITE, short=4096, probability=0.3)] if seed % 2 else []
    raw = SimulatedRing(seed, faults=shorts)
    async with open_simulated(raw) as ring, ring.create(tmp_path / "file") as writer:
        await writer.write(bytes(size))
        if seed % 3 == 0:
            await writer.flush()
        await writer.commit()
    held_against_the_law(raw.history, size)


@pytest.mark.parametrize(
    ("durability", "expected"),
    [
        ("published", [Opcode.FTRUNCATE, Opcode.FSYNC, Opcode.RENAMEAT, Opcode.FSYNC]),
        ("durable", [Opcode.FTRUNCATE, Opcode.FSYNC, Opcode.RENAMEAT]),
        ("written", [Opcode.FTRUNCATE, Opcode.RENAMEAT]),
    ],
)
def test_less_durability_leaves_syncs_out_and_nothing_else(
    place: tuple[Place, Place, int], durability: Durability, expected: list[Opcode]
) -> None:
    chain = steps(place, durability=durability)
    assert [operation.opcode for operation in chain] == expected
    fsyncs = [op.fd for op in chain if op.opcode is Opcode.FSYNC]
    assert fsyncs == [place[2], place[1].dir_fd][: len(fsyncs)]


def test_the_tail_comes_first_and_a_file_of_the_right_size_is_not_cut(
    place: tuple[Place, Place, int],
) -> None:
    source, target, fd = place
    tail = operations.write(fd, b"tail", 3, 4)
    built = publish_steps(
        fd, source, target, tail=tail, cut_to=None, overwrite=True, durability="written"
    )
    assert [step.operation.opcode for step in built] == [Opcode.WRITE, Opcode.RENAMEAT]
    assert built[1].operation.flags == 0, "overwrite replaces"


async def test_a_taken_name_keeps_its_file(
    open_any: OpenAny, place: tuple[Place, Place, int], tmp_path: Path
) -> None:
    (tmp_path / "target").write_bytes(b"old")
    source, target, fd = place
    built = publish_steps(
        fd, source, target, tail=None, cut_to=3, overwrite=False, durability="published"
    )
    async with open_any() as ring:
        with pytest.raises(TargetExistsError, match="target"):
            await run_steps(ring.reactor, built)
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "source").read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("name", ["target", os.fsdecode(b"\xff\xfe not UTF-8")])
async def test_where_there_is_no_noreplace_a_link_gives_the_name(
    open_simulated: OpenRaw, tmp_path: Path, number: int, name: str
) -> None:
    raw = SimulatedRing(2, faults=[Fault(Opcode.RENAMEAT, 1, result=-number)])
    async with open_simulated(raw) as ring, ring.create(tmp_path / name) as writer:
        await writer.write(b"linked")
        await writer.commit()
    assert (tmp_path / name).read_bytes() == b"linked"
    assert os.listdir(tmp_path) == [name]
    done = [operation.opcode for operation, result in raw.history if result >= 0]
    assert done.index(Opcode.FSYNC) < done.index(Opcode.LINKAT) < done.index(Opcode.UNLINKAT)
    directory_sync = len(done) - 1 - done[::-1].index(Opcode.FSYNC)
    assert directory_sync > done.index(Opcode.LINKAT)


async def test_the_link_that_gives_the_name_never_replaces(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(2, faults=[Fault(Opcode.RENAMEAT, 1, result=-errno.EINVAL)])
    async with open_simulated(raw) as ring:
        with pytest.raises(TargetExistsError):
            async with ring.create(tmp_path / "target") as writer:
                (tmp_path / "target").write_bytes(b"old")
                await writer.commit()
    assert (tmp_path / "target").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["target"]


async def test_a_replacing_rename_that_says_einval_is_an_error_and_not_a_link(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(2, faults=[Fault(Opcode.RENAMEAT, 1, result=-errno.EINVAL)])
    async with open_simulated(raw) as ring:
        with pytest.raises(OperationError, match="rename"):
            async with ring.create(tmp_path / "target", overwrite=True) as writer:
                await writer.commit()
    assert os.listdir(tmp_path) == []


async def test_a_chain_refused_before_it_began_is_not_mended_by_a_link(
    place: tuple[Place, Place, int], tmp_path: Path
) -> None:
    """The kernel cancels also what stands before a member it cannot take: nothing was written."""

    class RefusingReactor:
        asked = 0

        async def perform_chain(self, chain: Sequence[Operation]) -> list[int]:
            self.asked += 1
            refused = [-errno.ECANCELED] * len(chain)
            refused[1] = -errno.EINVAL
            assert chain[1].opcode is Opcode.RENAMEAT
            return refused

    source, target, fd = place
    tail = operations.write(fd, b"tail", 0, 4)
    built = publish_steps(
        fd, source, target, tail=tail, cut_to=None, overwrite=False, durability="written"
    )
    reactor = RefusingReactor()
    with pytest.raises(OperationError, match="rename"):
        await run_steps(reactor, built)  # type: ignore[arg-type]
    assert reactor.asked == 1
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("durability", ["written", "durable", "published"])
async def test_nothing_that_harms_is_linked_behind_what_fails_without_breaking_a_link(
    place: tuple[Place, Place, int], durability: Durability
) -> None:
    """The kernel goes on behind an fsync, a truncate or a rename that failed."""
    chains: list[list[Opcode]] = []

    class WatchingReactor:
        async def perform_chain(self, chain: Sequence[Operation]) -> list[int]:
            chains.append([operation.opcode for operation in chain])
            return [operation.length if operation.data else 0 for operation in chain]

    source, target, fd = place
    tail = operations.write(fd, b"tail", 0, 4)
    built = publish_steps(
        fd, source, target, tail=tail, cut_to=3, overwrite=False, durability=durability
    )
    await run_steps(WatchingReactor(), built)  # type: ignore[arg-type]
    sync = [Opcode.FSYNC]
    assert chains == [
        [Opcode.WRITE, Opcode.FTRUNCATE] + (sync if durability != "written" else []),
        [Opcode.RENAMEAT] + (sync if durability == "published" else []),
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_a_failed_fsync_is_never_followed_by_a_rename_nor_asked_again(
    open_simulated: OpenRaw, tmp_path: Path, seed: int
) -> None:
    raw = SimulatedRing(seed, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    async with open_simulated(raw) as ring:
        with pytest.raises(OperationError, match="fsync"):
            async with ring.create(tmp_path / "file") as writer:
                await writer.write(bytes(3 * SLOT + 1))
                await writer.commit()
    outcome = [(op.opcode, result) for op, result in raw.history]
    assert Opcode.RENAMEAT not in {opcode for opcode, _ in outcome}
    assert outcome.count((Opcode.FSYNC, -errno.EIO)) == 1
    assert outcome.count((Opcode.FSYNC, 0)) == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("opcode", [Opcode.WRITE, Opcode.FTRUNCATE, Opcode.RENAMEAT])
async def test_whatever_fails_before_the_name_leaves_nothing(
    open_simulated: OpenRaw, tmp_path: Path, opcode: Opcode
) -> None:
    raw = SimulatedRing(4, faults=[Fault(opcode, 1, result=-errno.EDQUOT)])
    async with open_simulated(raw) as ring:
        with pytest.raises(OperationError) as caught:
            async with ring.create(tmp_path / "file") as writer:
                await writer.write(b"one tail")
                await writer.commit()
    assert caught.value.errno == errno.EDQUOT
    assert caught.value.operation == operations.NAMES[opcode]
    assert os.listdir(tmp_path) == []


async def test_a_directory_fsync_that_fails_is_an_error_though_the_name_is_there(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    """No receipt: the name may be gone after a power cut. What is visible is whole."""
    raw = SimulatedRing(4, faults=[Fault(Opcode.FSYNC, 2, result=-errno.EIO)])
    async with open_simulated(raw) as ring:
        with pytest.raises(OperationError, match="fsync of the directory of"):
            async with ring.create(tmp_path / "file") as writer:
                await writer.write(b"whole")
                await writer.commit()
    assert (tmp_path / "file").read_bytes() == b"whole"


async def test_without_ftruncate_in_the_ring_the_order_is_the_same(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(6, missing_opcodes={Opcode.FTRUNCATE})
    async with open_simulated(raw) as ring, ring.create(tmp_path / "file") as writer:
        await writer.write(b"x" * (SLOT + 1))
        await writer.commit()
    assert (tmp_path / "file").read_bytes() == b"x" * (SLOT + 1)
    held_against_the_law(raw.history, SLOT + 1)
