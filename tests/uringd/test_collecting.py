"""Full collections of garbage: when much has ended, or nobody waits; not when many have come."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from uringd import collecting
from uringd.collecting import (
    BUSY_PERIOD_S,
    ENDED_MIN,
    ENDED_SHARE,
    YOUNG_COLLECTIONS_MIN,
    Collecting,
    leave_full_collections_to_the_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.uringd.conftest import OpenPeer, Serving, Until


def full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    """Leave this process as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def make_old_objects() -> list[list[int]]:
    """Make objects that live, until Python would make a full collection."""
    return [[] for _ in range(8_000 * YOUNG_COLLECTIONS_MIN * 2)]


def test_python_makes_none_by_itself_any_more() -> None:
    leave_full_collections_to_the_server()
    gc.collect()
    before = full_collections()
    kept = make_old_objects()
    assert full_collections() == before
    assert gc.get_count()[2] >= YOUNG_COLLECTIONS_MIN, "else it would not have been time for one"
    assert kept


async def test_one_is_made_when_much_has_ended_for_what_is_left() -> None:
    gc.disable()
    try:
        several = Collecting()
        before = full_collections()
        for _ in range(ENDED_MIN - 1):
            several.ended(5)
        assert full_collections() == before
        several.ended(5)
        assert full_collections() == before + 1
        for _ in range(ENDED_MIN):
            several.ended(ENDED_SHARE * ENDED_MIN * 10)
        assert full_collections() == before + 1, "so few among so many are not worth it"
    finally:
        gc.enable()


async def test_what_else_was_left_is_looked_for_when_nobody_uploads_or_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leave_full_collections_to_the_server()
    made = Collecting()
    gc.collect()
    before = full_collections()
    made.consider(busy=False)
    assert full_collections() == before, "nothing has come"
    kept = make_old_objects()
    made.consider(busy=True)
    assert full_collections() == before
    made.consider(busy=False)
    assert full_collections() == before + 1
    kept += make_old_objects()
    made.consider(busy=True)
    assert full_collections() == before + 1
    await trio.sleep(BUSY_PERIOD_S)
    made.consider(busy=True)
    assert full_collections() == before + 2
    assert kept


async def test_sessions_that_ended_do_not_stay_in_memory(
    serving: Serving,
    open_peer: OpenPeer,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(collecting, "ENDED_MIN", 4)
    request.addfinalizer(gc.enable)
    gc.disable()
    sessions: weakref.WeakSet[object] = weakref.WeakSet()
    async with serving() as daemon:
        for _ in range(13):
            async with open_peer(daemon.unix):
                sessions.update(daemon.server.sessions)
            await until(lambda: not daemon.server.sessions)
        assert 0 < len(sessions) <= 4


async def test_a_server_that_leaves_looks_for_no_garbage(
    serving: Serving, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "ENDED_MIN", 1)
    leave_full_collections_to_the_server()
    async with serving() as daemon, open_peer(daemon.unix), open_peer(daemon.unix):
        before = full_collections()
        await daemon.server.shut_down()
        assert not daemon.server.sessions
        assert full_collections() == before
