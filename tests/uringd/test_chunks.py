"""Single chunks: what is taken, what is refused, and that a refused one costs itself alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import RANGES_MAX, ErrorCode, FrameType
from uringio.lowlevel import Opcode, Operation

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing

Content = Callable[[int], bytes]

BLOCK = 4096
SLOT_BYTES = 64 << 10
CREDIT = 8


async def test_a_damaged_chunk_costs_itself_and_can_be_sent_again(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    data = content(BLOCK)
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create(size=BLOCK)
        await peer.data(handle, 0, data, checksum=1)
        told, error = await peer.notice()
        assert (told, error.code) == (handle, ErrorCode.BAD_CHECKSUM)
        assert (error.offset, error.retryable) == (0, True)
        await peer.wait_credit(CREDIT)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=BLOCK), handle)
        assert error.code == ErrorCode.INCOMPLETE, "not a byte of it was taken"
        await peer.data(handle, 0, data)
        await peer.commit(handle, BLOCK)
    assert (daemon.root / "file").read_bytes() == data


async def test_the_errors_of_chunks_come_before_the_answer_to_what_followed_them(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        for block in range(CREDIT):
            await peer.data(handle, block * BLOCK, bytes(BLOCK), checksum=1)
        await peer.refusal(FrameType.COMMIT, pb.Commit(size=CREDIT * BLOCK), handle)
        told = [error.offset for _, error in peer.notices]
        assert told == [block * BLOCK for block in range(CREDIT)]


async def test_a_chunk_that_comes_again_is_success(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        for _ in range(3):
            await peer.data(handle, 0, b"a" * BLOCK)
            await peer.data(handle, BLOCK, b"tail")
        await peer.commit(handle, BLOCK + 4)
        assert not peer.notices
        await peer.wait_credit(CREDIT)
    assert (daemon.root / "file").read_bytes() == b"a" * BLOCK + b"tail"


@pytest.mark.parametrize(
    ("offset", "payload"),
    [
        (BLOCK, b"x" * BLOCK),
        (BLOCK, b"a" * 2 * BLOCK),
        (0, b"a" * 2 * BLOCK),
        (2 * BLOCK, b"a" * 2 * BLOCK),
        (0, b"a" * 4 * BLOCK),
    ],
    ids=["other bytes", "longer", "over its start", "over its end", "around it"],
)
async def test_other_bytes_or_another_cut_are_a_conflict_and_the_first_ones_stay(
    daemon: Daemon, open_peer: OpenPeer, offset: int, payload: bytes
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, BLOCK, b"a" * BLOCK)
        await peer.data(handle, 2 * BLOCK, b"a" * BLOCK)
        await peer.data(handle, offset, payload)
        told, error = await peer.notice()
        assert (told, error.code, error.offset) == (handle, ErrorCode.CONFLICT, offset)
        await peer.data(handle, 0, b"a" * BLOCK)
        await peer.commit(handle, 3 * BLOCK)
        await peer.wait_credit(CREDIT)
    assert (daemon.root / "file").read_bytes() == b"a" * 3 * BLOCK


async def test_an_old_chunk_is_compared_with_the_disk(
    serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving() as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        for block in range(1030):  # more than the server remembers one by one
            await peer.wait_credit()
            await peer.data(handle, block * BLOCK, block.to_bytes(4, "big") * (BLOCK // 4))
        await peer.wait_credit(2)
        await peer.data(handle, BLOCK, (1).to_bytes(4, "big") * (BLOCK // 4))
        await peer.data(handle, BLOCK, (2).to_bytes(4, "big") * (BLOCK // 4))
        _, error = await peer.notice()
        assert (error.code, error.offset) == (ErrorCode.CONFLICT, BLOCK)
        await peer.wait_credit(CREDIT)
        await peer.commit(handle, 1030 * BLOCK)
        assert not peer.notices
    blocks = [block.to_bytes(4, "big") * (BLOCK // 4) for block in range(1030)]
    assert (daemon.root / "file").read_bytes() == b"".join(blocks)


@pytest.mark.parametrize(
    ("size", "offset", "length", "code"),
    [
        (None, 512, BLOCK, ErrorCode.MISALIGNED),
        (None, 1, 1, ErrorCode.MISALIGNED),
        (4 * BLOCK, 4 * BLOCK, BLOCK, ErrorCode.OUT_OF_RANGE),
        (4 * BLOCK, 3 * BLOCK, 2 * BLOCK, ErrorCode.OUT_OF_RANGE),
        (4 * BLOCK, 0, 100, ErrorCode.OUT_OF_RANGE),
        (4 * BLOCK + 7, 4 * BLOCK, 6, ErrorCode.OUT_OF_RANGE),
        (4 * BLOCK + 7, 4 * BLOCK, 8, ErrorCode.OUT_OF_RANGE),
        (0, 0, 1, ErrorCode.OUT_OF_RANGE),
    ],
)
async def test_a_chunk_that_cannot_be_here_is_refused_by_itself(
    daemon: Daemon,
    open_peer: OpenPeer,
    size: int | None,
    offset: int,
    length: int,
    code: ErrorCode,
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create(size=size)
        await peer.data(handle, offset, bytes(length))
        told, error = await peer.notice()
        assert (told, error.code, error.offset) == (handle, code, offset)
        await peer.wait_credit(CREDIT)
        await peer.ask(FrameType.PING, pb.Ping())
        await peer.upload("another", b"the session goes on")


async def test_a_chunk_farther_out_than_a_disk_reaches_breaks_its_upload(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 2**63 - BLOCK, bytes(BLOCK - 1))
        told, error = await peer.notice()
        assert (told, error.code) == (handle, ErrorCode.NO_SPACE)
        await peer.wait_credit(CREDIT)
        await peer.upload("another", b"the session goes on")


async def test_the_tail_says_where_the_file_ends(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 2 * BLOCK, b"tail")
        await peer.data(handle, 3 * BLOCK, bytes(BLOCK))
        assert (await peer.notice())[1].code == ErrorCode.OUT_OF_RANGE
        await peer.data(handle, BLOCK, b"another tail")
        assert (await peer.notice())[1].code == ErrorCode.OUT_OF_RANGE
        await peer.data(handle, 0, b"x" * 2 * BLOCK)
        await peer.commit(handle, 2 * BLOCK + 4)
    assert (daemon.root / "file").read_bytes() == b"x" * 2 * BLOCK + b"tail"


async def test_a_tail_before_bytes_that_are_there_is_refused(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 2 * BLOCK, bytes(BLOCK))
        await peer.data(handle, 0, b"tail")
        assert (await peer.notice())[1].code == ErrorCode.OUT_OF_RANGE


async def test_a_chunk_for_no_upload_is_refused_and_its_credit_comes_back(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        for number in range(2 * CREDIT):
            await peer.wait_credit()
            await peer.data(77, number * BLOCK, bytes(BLOCK))
            told, error = await peer.notice()
            found = (told, error.code, error.offset)
            assert found == (77, ErrorCode.NOT_FOUND, number * BLOCK)
        await peer.wait_credit(CREDIT)


async def test_a_chunk_longer_than_a_slot_ends_the_session(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        peer.connection.chunk_bytes_max = 1 << 20
        await peer.send(peer.connection.send_data_header(1, 0, SLOT_BYTES + 1, 0))
        error = await peer.last_words()
        assert error is not None and error.code == ErrorCode.TOO_LARGE


async def test_data_without_credit_ends_the_session_and_no_other(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix) as peer,
        open_peer(daemon.unix) as other,
    ):
        handle = await peer.create()
        slow_ring.hold(Opcode.WRITE)
        for block in range(CREDIT):
            await peer.data(handle, block * BLOCK, bytes(BLOCK))
        assert peer.credit == 0
        await peer.data(handle, CREDIT * BLOCK, bytes(BLOCK))
        error = await peer.last_error()
        assert error is not None and error.code == ErrorCode.CREDIT_EXCEEDED
        slow_ring.let_go()
        await other.upload("other", b"fine")
        assert daemon.published == ["other"]


async def test_credit_is_not_kept_back_from_a_client_that_has_none(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        slow_ring.held = _is_write_from(BLOCK)
        for block in range(1, CREDIT):
            await peer.data(handle, block * BLOCK, bytes(BLOCK))
        await peer.data(handle, 0, bytes(BLOCK))
        assert peer.credit == 0
        await peer.wait_credit()
        assert peer.credit == 1, "the one slot that is free"
        slow_ring.let_go()
        await peer.wait_credit(CREDIT)


async def test_one_session_whose_disk_stands_still_leaves_slots_for_another(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with (
        serving(slow_ring) as daemon,
        open_peer(daemon.unix) as stuck,
        open_peer(daemon.unix) as other,
    ):
        handle = await stuck.create("stuck")
        slow_ring.held = _is_write_from(BLOCK)
        for block in range(1, CREDIT + 1):
            await stuck.data(handle, block * BLOCK, bytes(BLOCK))
        await other.upload("other", b"fine")
        assert daemon.published == ["other"]


async def test_separate_ranges_are_limited(serving: Serving, open_peer: OpenPeer) -> None:
    async with serving() as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        for number in range(RANGES_MAX):
            await peer.wait_credit()
            await peer.data(handle, 2 * number * BLOCK, bytes(BLOCK))
        await peer.wait_credit(CREDIT)
        await peer.data(handle, 2 * RANGES_MAX * BLOCK, bytes(BLOCK))
        _, error = await peer.notice()
        assert (error.code, error.retryable) == (ErrorCode.TOO_MANY_RANGES, True)
        await peer.data(handle, BLOCK, bytes(BLOCK))
        await peer.data(handle, 2 * RANGES_MAX * BLOCK, bytes(BLOCK))
        await peer.wait_credit(CREDIT)
        assert not peer.notices


async def test_writes_that_end_in_another_order_may_have_more_ranges_for_a_while(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        for number in range(RANGES_MAX):
            await peer.wait_credit()
            await peer.data(handle, 4 * number * BLOCK, bytes(BLOCK))
        await peer.wait_credit(CREDIT)
        # The second touches only the first, and is written before it.
        slow_ring.held = lambda operation: _is_write_at(operation, BLOCK)
        await peer.data(handle, BLOCK, bytes(BLOCK))
        await peer.data(handle, 2 * BLOCK, bytes(BLOCK))
        while not any(_is_write_at(operation, 2 * BLOCK) for operation, _ in slow_ring.history):
            await peer.ask(FrameType.PING, pb.Ping())
        slow_ring.let_go()
        await peer.wait_credit(CREDIT)
        await peer.upload("another", b"the server lives")


def _is_write_at(operation: Operation, offset: int) -> bool:
    return operation.opcode in {Opcode.WRITE, Opcode.WRITE_FIXED} and operation.offset == offset


def _is_write_from(offset: int) -> Callable[[Operation], bool]:
    return lambda operation: (
        operation.opcode in {Opcode.WRITE, Opcode.WRITE_FIXED} and operation.offset >= offset
    )


async def test_chunks_that_nobody_wants_take_no_slot(serving: Serving, open_peer: OpenPeer) -> None:
    async with (
        serving(slots=2) as daemon,
        open_peer(daemon.unix) as stranger,
        open_peer(daemon.unix) as other,
    ):
        await stranger.send(stranger.connection.send_data_header(99, 0, SLOT_BYTES, 0))
        await stranger.send(bytes(SLOT_BYTES - 1))
        await other.upload("whole", bytes(3 * SLOT_BYTES))
        assert daemon.free_slots == 2
        await stranger.send(b"\0")
        handle, error = await stranger.notice()
        assert (handle, error.code) == (99, ErrorCode.NOT_FOUND)
        await stranger.wait_credit(1)
