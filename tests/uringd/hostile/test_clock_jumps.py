"""The wall's clock jumps: what is promised for a time is kept for that time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from uringd.clock import SteadyTime
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import Daemon, OpenPeer, Until

    Jump = Callable[[int], None]

DAY_NS = 86_400 * 10**9
JUMP_NS = 50 * 365 * DAY_NS


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Put the wall's clock so many nanoseconds from what it is in truth."""
    true = time.time_ns

    def put(by_ns: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: true() + by_ns)

    return put


@pytest.mark.parametrize("jumps", [(JUMP_NS,), (-JUMP_NS, 0), (-JUMP_NS, JUMP_NS)])
async def test_a_receipt_of_a_replaced_file_is_kept_whatever_the_clock_does(
    daemon: Daemon, open_peer: OpenPeer, jump: Jump, jumps: tuple[int, ...]
) -> None:
    """Its COMMIT is answered again, though nothing but its age keeps it."""
    first, *rest = jumps
    async with open_peer(daemon.unix, "resume") as peer:
        before = await peer.upload("x", b"before")
        jump(first)
        await daemon.server.registry.expire(60)
        after = await peer.upload("x", b"after", overwrite=True)
        await peer.upload("x", b"last", overwrite=True)
        for by_ns in (first, *rest):
            jump(by_ns)
            await daemon.server.registry.expire(60)
        for receipt in (before, after):
            reply = await peer.resume(receipt.upload_id)
            assert await peer.commit(reply.upload, receipt.size) == receipt


@pytest.mark.parametrize("by_ns", [JUMP_NS, -JUMP_NS])
async def test_an_upload_is_resumed_and_committed_over_a_jump(
    daemon: Daemon, open_peer: OpenPeer, until: Until, jump: Jump, by_ns: int
) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="x"))
        await peer.fill(created.upload, b"content")
        jump(by_ns)
        await daemon.server.registry.expire(60)
    await until(lambda: not daemon.uploads)
    jump(-by_ns)
    await daemon.server.registry.expire(60)
    async with open_peer(daemon.unix, "resume") as peer:
        reply = await peer.resume(created.upload_id)
        assert [part.length for part in reply.durable] == [7]
        receipt = await peer.commit(reply.upload, 7)
        assert 0 <= receipt.seconds < 3600, "as long as it took, by no wall's clock"


async def test_a_receipt_does_get_old_by_days_that_pass(
    daemon: Daemon, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a jump: both clocks go on."""
    async with open_peer(daemon.unix, "resume") as peer:
        old = await peer.upload("x", b"old")
        await peer.upload("x", b"new", overwrite=True)
        for name in ("time_ns", "monotonic_ns"):
            true = getattr(time, name)
            monkeypatch.setattr(time, name, lambda true=true: true() + 8 * DAY_NS)
        await daemon.server.registry.expire(60)
        refusal = await peer.refusal(FrameType.RESUME, pb.Resume(upload_id=old.upload_id))
        assert refusal.code == ErrorCode.NOT_FOUND


def test_steady_time_is_the_walls_where_nothing_jumps() -> None:
    steady = SteadyTime()
    before = time.time_ns()
    now = steady.now_ns()
    assert abs(now - before) < DAY_NS
    assert steady.now_ns() >= now
