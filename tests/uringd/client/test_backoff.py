"""Waiting before trying again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from uringd.client.backoff import WAIT_S_MAX, Backoff, Patience
from uringd.errors import ConnectionLostError

if TYPE_CHECKING:
    from trio.testing import MockClock

LOST = ConnectionLostError("gone")


async def test_waits_grow_to_a_bound_and_end_when_patience_does(autojump_clock: MockClock) -> None:
    patience = Patience(60)
    backoff = Backoff(patience)
    waits = []
    with pytest.raises(ConnectionLostError, match="gone"):
        while True:
            before = trio.current_time()
            await backoff.wait(LOST)
            waits.append(trio.current_time() - before)
    assert 0 <= waits[0] <= 0.1
    assert WAIT_S_MAX / 2 < max(waits) <= WAIT_S_MAX
    assert sum(waits) == pytest.approx(60)


async def test_progress_starts_both_anew(autojump_clock: MockClock) -> None:
    patience = Patience(20)
    backoff = Backoff(patience)
    for _ in range(30):
        for _ in range(3):
            await backoff.wait(LOST)
        backoff.progress()
    before = trio.current_time()
    await backoff.wait(LOST)
    assert trio.current_time() - before <= 0.1


async def test_without_patience_there_is_no_second_try(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLostError, match="gone"):
        await Backoff(Patience(0)).wait(LOST)


async def test_silence_before_a_loss_costs_no_patience(autojump_clock: MockClock) -> None:
    """A source may be slow for longer than it takes to give up."""
    backoff = Backoff(Patience(20))
    backoff.progress()
    await trio.sleep(1000)
    await backoff.wait(LOST)
