"""pwrite_many: many writes, one task, a bounded number in flight."""

from __future__ import annotations

import errno
import mmap
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

import uringio
from uringio._ring.many import IN_FLIGHT_MAX, MANY_MAX
from uringio._trio.many import PIECE_COUNT, PIECES_AT_A_TIME
from uringio.exceptions import BrokenError
from uringio.lowlevel import Completion, Opcode, RingLike
from uringio.testing import Fault, SimulatedRing

OpenAny = Callable[..., AbstractAsyncContextManager[uringio.Ring]]
OpenRaw = Callable[[RingLike], AbstractAsyncContextManager[uringio.Ring]]

BLOCK = 4096
COUNT = 3 * IN_FLIGHT_MAX


def blocks(count: int) -> list[memoryview]:
    memory = memoryview(mmap.mmap(-1, BLOCK * count))
    memory[:] = random.Random(7).randbytes(len(memory))
    return [memory[i * BLOCK : (i + 1) * BLOCK] for i in range(count)]


async def test_more_than_are_in_flight_at_a_time_are_all_written(
    open_any: OpenAny, tmp_path: Path
) -> None:
    views = blocks(COUNT)
    pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
    random.Random(1).shuffle(pairs)
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert await file.pwrite_many(pairs) == COUNT * BLOCK
        assert ring.statistics().in_flight == 0
    assert (tmp_path / "file").read_bytes() == b"".join(views)


class RingThatBreaks(SimulatedRing):
    """Gives no completions from its third reap on."""

    reaps = 0

    def reap(self) -> list[Completion]:
        self.reaps += 1
        if self.reaps > 2:
            raise BrokenError("it broke (test)")
        return super().reap()


@pytest.mark.parametrize("count", [COUNT, 2 * PIECE_COUNT + 5])
async def test_a_ring_that_breaks_is_one_error_and_not_a_group(
    open_simulated: OpenRaw, tmp_path: Path, count: int
) -> None:
    pairs = [(b"x" * 100, i * 100) for i in range(count)]
    ring: uringio.Ring
    with pytest.warns(ResourceWarning, match="leaked, not freed"):
        async with (
            open_simulated(RingThatBreaks(3)) as ring,
            await ring.open(tmp_path / "file", "w+", direct="never") as file,
        ):
            with pytest.raises(BrokenError):
                await file.pwrite_many(pairs)


async def test_pieces_that_were_not_begun_are_named_after_an_error(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    count = 7 * PIECE_COUNT
    raw = SimulatedRing(6, faults=[Fault(Opcode.WRITE, 1, result=-errno.EIO)])
    pairs = [(b"x" * 100, i * 100) for i in range(count)]
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(uringio.OperationError) as caught:
            await file.pwrite_many(pairs)
        written = file.statistics().cached_bytes // 100
    failures = caught.value.failures
    assert len(failures) + written == count
    assert failures[count - 1] == errno.ECANCELED


async def test_an_iterator_without_an_end_is_left_alone_after_an_error(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(6, faults=[Fault(Opcode.WRITE, 1, result=-errno.EIO)])
    taken = 0

    def pairs() -> Iterator[tuple[bytes, int]]:
        nonlocal taken
        while True:
            assert taken <= 9 * PIECE_COUNT, "it is asked for more than anybody will write"
            taken += 1
            yield b"x" * 100, taken * 100

    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(uringio.OperationError) as caught:
            await file.pwrite_many(pairs())
        written = file.statistics().cached_bytes // 100
    assert caught.value.errno == errno.EIO
    assert len(caught.value.failures) + written == taken


async def test_pieces_of_any_alignment_are_all_written(open_any: OpenAny, tmp_path: Path) -> None:
    count = PIECE_COUNT + 10
    memory = memoryview(mmap.mmap(-1, BLOCK * 2))
    memory[:] = random.Random(3).randbytes(len(memory))
    straight, moved = memory[:BLOCK], memory[5 : 5 + BLOCK]
    pairs = [(moved if i % 100 == 99 else straight, i * BLOCK) for i in range(count)]
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert await file.pwrite_many(pairs) == count * BLOCK
    assert (tmp_path / "file").read_bytes() == b"".join(bytes(view) for view, _ in pairs)


async def test_short_writes_are_finished(open_simulated: OpenRaw, tmp_path: Path) -> None:
    views = blocks(20)
    raw = SimulatedRing(5, faults=[Fault(Opcode.WRITE, short=700, probability=0.4)])
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
        assert await file.pwrite_many(pairs) == 20 * BLOCK
    assert (tmp_path / "file").read_bytes() == b"".join(views)


async def test_after_an_error_no_more_are_started_and_all_have_ended(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(6, faults=[Fault(Opcode.WRITE, 1, result=-errno.EIO)])
    count = 5 * PIECE_COUNT
    pairs = [(b"x" * 100, i * 100) for i in range(count)]
    async with (
        open_simulated(raw) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(uringio.OperationError) as caught:
            await file.pwrite_many(pairs)
        assert (caught.value.operation, caught.value.errno) == ("write", errno.EIO)
        assert ring.statistics().in_flight == 0
    writes = [op for op, _ in raw.history if op.opcode is Opcode.WRITE]
    assert len(writes) < count


async def test_a_pair_that_cannot_be_written_is_refused_before_any_is(
    open_any: OpenAny, tmp_path: Path
) -> None:
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        with pytest.raises(TypeError):
            await file.pwrite_many([(b"x", 0), ("text", 1)])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="an offset is 0 or more"):
            await file.pwrite_many([(b"x", 0), (b"x", -1)])
        assert await file.pread(1, 0) == b""


async def test_pairs_are_taken_while_those_before_them_are_written(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    count = 5 * PIECE_COUNT + 1
    written_by_then: list[int] = []
    async with (
        open_simulated(SimulatedRing(11)) as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):

        def pairs() -> Iterator[tuple[bytes, int]]:
            for i in range(count):
                if i % PIECE_COUNT == 0:
                    written_by_then.append(file.statistics().cached_bytes // 100)
                yield b"x" * 100, i * 100

        assert await file.pwrite_many(pairs()) == count * 100
    ahead = [i * PIECE_COUNT - done for i, done in enumerate(written_by_then)]
    assert max(ahead) <= PIECES_AT_A_TIME * PIECE_COUNT


async def test_a_bad_pair_among_very_many_is_told_when_those_before_it_are_written(
    open_any: OpenAny, tmp_path: Path
) -> None:
    count = 2 * PIECE_COUNT + 10
    pairs = [(b"x" * 100, i * 100) for i in range(count)]
    pairs.append((b"x" * 100, -1))
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(ValueError, match="an offset is 0 or more"):
            await file.pwrite_many(pairs)
        assert ring.statistics().in_flight == 0
        assert await file.pread(2 * PIECE_COUNT * 100, 0) == b"x" * (2 * PIECE_COUNT * 100)
        assert await file.pwrite_many(pairs[:-1]) == count * 100


async def test_an_exception_of_the_iterator_is_raised_as_it_is(
    open_any: OpenAny, tmp_path: Path
) -> None:
    def pairs() -> Iterator[tuple[bytes, int]]:
        for i in range(PIECE_COUNT):
            yield b"x" * 100, i * 100
        raise LookupError("there are no more")

    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+", direct="never") as file,
    ):
        with pytest.raises(LookupError, match="there are no more"):
            await file.pwrite_many(pairs())
        assert ring.statistics().in_flight == 0


async def test_a_cancelled_task_leaves_when_its_writes_have_ended(
    open_any: OpenAny, tmp_path: Path
) -> None:
    views = blocks(COUNT)
    pairs = [(view, i * BLOCK) for i, view in enumerate(views)]
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.pwrite_many, pairs)
                await trio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert ring.statistics().in_flight == 0
        assert await file.pwrite_many(pairs) == COUNT * BLOCK, "the file is usable as before"


async def test_unaligned_pairs_are_copied_side_by_side(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    raw = SimulatedRing(8)
    data = random.Random(2).randbytes(64 * BLOCK + 5)
    odd = bytearray(data)
    async with open_simulated(raw) as ring, await ring.open(tmp_path / "file", "w+") as file:
        pairs = [(memoryview(odd)[i : i + 1000], i) for i in range(0, len(odd), 1000)]
        assert await file.pwrite_many(pairs) == len(data)
        assert await file.pread(len(data), 0) == data


async def test_the_error_names_every_pair_that_was_not_written(
    open_simulated: OpenRaw, tmp_path: Path
) -> None:
    """One result for each failure, and ECANCELED for what was not begun; the rest is written."""
    fault = Fault(Opcode.WRITE, 300, result=-errno.ENOSPC)
    raw = SimulatedRing(9, faults=[fault])
    count = PIECE_COUNT - 1  # with the odd one they are a piece
    path, views = tmp_path / "file", blocks(count)
    async with open_simulated(raw) as ring, await ring.open(path, "w+") as file:
        pairs: list[tuple[memoryview | bytes, int]] = [(v, i * BLOCK) for i, v in enumerate(views)]
        pairs.append((b"odd", count * BLOCK))
        with pytest.raises(uringio.NoSpaceError) as caught:
            await file.pwrite_many(pairs)
    failures = caught.value.failures
    assert list(failures.values()).count(errno.ENOSPC) == 1
    assert set(failures.values()) == {errno.ENOSPC, errno.ECANCELED}
    [failed] = [number for number, cause in failures.items() if cause == errno.ENOSPC]
    assert caught.value.offset == failed * BLOCK
    assert count in failures, "what would have been copied was not begun"
    assert len(failures) < count
    written = path.read_bytes().ljust((count + 1) * BLOCK, b"\0")
    for number, (view, offset) in enumerate(pairs):
        if number not in failures:
            assert written[offset : offset + len(view)] == view


async def test_more_calls_than_run_at_a_time_wait_their_turn(
    open_any: OpenAny, tmp_path: Path
) -> None:
    views = blocks(3 * MANY_MAX)
    async with (
        open_any() as ring,
        await ring.open(tmp_path / "file", "w+") as file,
        trio.open_nursery() as nursery,
    ):
        for i, view in enumerate(views):
            nursery.start_soon(file.pwrite_many, [(view, i * BLOCK)])
    assert (tmp_path / "file").read_bytes() == b"".join(views)


async def test_pieces_of_every_kind_go_in_one_call(open_any: OpenAny, tmp_path: Path) -> None:
    data = random.Random(4).randbytes(40 * BLOCK)
    views = blocks(10)
    for i, view in enumerate(views):
        view[:] = data[i * BLOCK : (i + 1) * BLOCK]
    pairs: list[tuple[memoryview | bytes, int]] = [(v, i * BLOCK) for i, v in enumerate(views)]
    pairs += [(data[i * BLOCK : (i + 1) * BLOCK], i * BLOCK) for i in range(10, 20)]
    pairs += [(data[i : i + 1000], i) for i in range(20 * BLOCK, 40 * BLOCK, 1000)]
    pairs += [(b"", 5), (b"", 0)]
    random.Random(5).shuffle(pairs)
    async with open_any() as ring, await ring.open(tmp_path / "file", "w+") as file:
        assert await file.pwrite_many(pairs) == sum(len(view) for view, _ in pairs)
    assert (tmp_path / "file").read_bytes()[: 40 * BLOCK] == data


async def test_a_ring_that_breaks_says_so(open_simulated: OpenRaw, tmp_path: Path) -> None:
    class Breaking(SimulatedRing):
        def submit(self) -> int:
            if len(self._runs) > 1:
                raise uringio.BrokenError("the kernel is gone")
            return super().submit()

    pairs = [(view, i * BLOCK) for i, view in enumerate(blocks(3))]
    with pytest.warns(ResourceWarning, match="did not give"):
        async with open_simulated(Breaking(1)) as ring:
            file = await ring.open(tmp_path / "file", "w+")
            with pytest.raises(uringio.BrokenError, match="the kernel is gone"):
                await file.pwrite_many(pairs)
            await file.aclose()
