"""Our server keeps the protocol: every case passes, and what is skipped is known."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import trio

from uringd.conformance.cases import SECTIONS
from uringd.conformance.cases.phases import GRACE_S, HANDSHAKE_S
from uringd.conformance.leaving import Leaving
from uringd.conformance.runner import FAILED, PASSED, SKIPPED, Result
from uringd.conformance.target import FEATURES, Target
from uringd.wire import State
from uringio.lowlevel import Opcode, Operation

if TYPE_CHECKING:
    from tests.uringd.conformance.conftest import Judge
    from tests.uringd.conftest import Daemon, Serving, SlowRing

SETTINGS: dict[str, Any] = {
    "slot_bytes": 512 << 10,
    "token": "a long random word",
    "connections_max": 24,
}
"""Chunks of eight pages, a token to be wrong about, and limits that are soon reached."""

TIMEOUT_S = 14.0
"""Too little for a server's usual ten seconds and what they may be late."""

SKIPPED_HERE = {
    "PH-007": "10 s",  # run below, on a server of less patience
    "PH-008": "300 s",  # the same
    "CH-008": "chunk_bytes",  # every upload has chunk_bytes_max
    "FC-002": "faster",  # on a fast disk; run below, on a slow one
}
"""The only cases that may be skipped, and why."""


async def target_of(daemon: Daemon) -> Target:
    target = Target(daemon.unix, daemon.server.settings.token, TIMEOUT_S)
    await target.probe()
    return target


def wrong(results: Sequence[Result], *may_skip: str) -> list[tuple[str, str, str]]:
    """Return what did not pass, but for cases that may be skipped."""
    return [
        (result.case.id, result.expected, result.got)
        for result in results
        if result.outcome == FAILED
        or (result.outcome == SKIPPED and result.case.id not in may_skip)
    ]


@pytest.mark.parametrize("prefix", [s.prefix for s in SECTIONS if s.prefix != "SH"])
async def test_it_keeps_each_section(prefix: str, serving: Serving, judge: Judge) -> None:
    async with serving(**SETTINGS) as daemon:
        target = await target_of(daemon)
        assert target.features == set(FEATURES)
        results = await judge(target, prefix)
        assert wrong(results, *SKIPPED_HERE) == []
        assert target.unfinished == set()


@pytest.mark.parametrize("prefix", ["TR", "HE", "FC"])
async def test_it_keeps_it_over_tcp(prefix: str, serving: Serving, judge: Judge) -> None:
    async with serving(**SETTINGS) as daemon:
        target = Target(daemon.tcp, SETTINGS["token"], TIMEOUT_S)
        await target.probe()
        assert wrong(await judge(target, prefix), *SKIPPED_HERE) == []


async def test_it_keeps_it_without_patience(serving: Serving, judge: Judge) -> None:
    async with serving(idle_timeout_s=0.3, handshake_timeout_s=0.5) as daemon:
        target = await target_of(daemon)
        target.timeout_s = HANDSHAKE_S + GRACE_S
        assert wrong(await judge(target, "PH-007", "PH-008")) == []


async def test_it_keeps_it_on_a_slow_disk(
    slow_ring: SlowRing, serving: Serving, judge: Judge
) -> None:
    """Writes wait until the session was ended for one chunk too many."""
    async with serving(slow_ring) as daemon:
        target = await target_of(daemon)
        slow_ring.hold(Opcode.WRITE)
        is_write = slow_ring.held

        def held(operation: Operation) -> bool:
            states = [session.connection.state for session in daemon.server.sessions]
            return is_write(operation) and State.OPEN in states

        slow_ring.held = held
        [result] = await judge(target, "FC-002")
        assert (result.outcome, result.got) == (PASSED, "")


async def test_it_keeps_it_while_it_leaves(serving: Serving, judge: Judge) -> None:
    async with serving(shutdown_timeout_s=30.0) as daemon, trio.open_nursery() as nursery:
        target = await target_of(daemon)
        target.leaving = Leaving(lambda: nursery.start_soon(daemon.server.shut_down))
        assert wrong(await judge(target, "SH")) == []


@pytest.mark.parametrize("prefix", ["TR", "CO", "ST", "LI", "RE"])
async def test_it_keeps_it_while_the_clock_jumps(
    prefix: str, serving: Serving, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the day goes by years, forward and back: nothing is promised by it."""
    dice, now = random.Random(prefix), time.time()
    monkeypatch.setattr(time, "time", lambda: now + dice.uniform(-1, 1) * 10 * 365 * 86_400)
    async with serving(**SETTINGS) as daemon:
        assert wrong(await judge(await target_of(daemon), prefix), *SKIPPED_HERE) == []
