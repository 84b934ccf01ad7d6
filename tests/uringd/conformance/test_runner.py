"""The kit notices servers that are wrong: ours, with one thing changed on its way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.conformance.case import Case, FailedError, SkippedError
from uringd.conformance.runner import FAILED, PASSED, SKIPPED, WAITS_MAX, Result, run
from uringd.conformance.target import NobodyThereError, Target
from uringd.urls import UnixUrl
from uringd.wire import Control, ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.conformance.conftest import Behind, Judge, Lie
    from tests.uringd.conftest import Daemon, ScriptedServer

TIMEOUT_S = 15.0
SHORT_S = 0.5
"""For cases that are to fail because nothing comes."""


def changed(frame_type: FrameType, change: Callable[[Control], Control | bytes | None]) -> Lie:
    """Change frames of one type only."""
    return lambda event: change(event) if event.type is frame_type else event


def _set(name: str, value: object) -> Callable[[Control], Control]:
    def change(event: Control) -> Control:
        setattr(event.message, name, value)
        return event

    return change


def _cleared(name: str) -> Callable[[Control], Control]:
    def change(event: Control) -> Control:
        event.message.ClearField(name)
        return event

    return change


def _grown(name: str, by: int = 1) -> Callable[[Control], Control]:
    def change(event: Control) -> Control:
        setattr(event.message, name, getattr(event.message, name) + by)
        return event

    return change


def _first_hole_longer(event: Control) -> Control:
    for part in event.message.missing[:1]:
        part.length += 1
    return event


def _another_cookie(event: Control) -> Control:
    return dataclasses.replace(event, cookie=event.cookie + 1)


def _another_handle(event: Control) -> Control:
    return dataclasses.replace(event, upload=event.upload + 1)


def _twice(event: Control) -> bytes:
    from tests.uringd.conformance.conftest import frame_of  # noqa: PLC0415

    return 2 * frame_of(event)


ERROR, ACK, PING = FrameType.ERROR, FrameType.ACK, FrameType.PING
HELLO, CREATE, COMMIT = FrameType.HELLO, FrameType.CREATE, FrameType.COMMIT

LIES: dict[str, tuple[str, Lie, str]] = {
    "a cookie that nobody asked with": ("PI-001", changed(PING, _another_cookie), "unanswered"),
    "a handle that is not the request's": ("SY-001", changed(FrameType.SYNC, _another_handle), ""),
    "too much credit": ("AC-004", changed(ACK, _grown("credit")), "slots returned"),
    "written beyond accepted": ("AC-001", changed(ACK, _grown("written", 1 << 40)), "accepted >="),
    "durable without a sync": ("AC-001", changed(ACK, _grown("durable", 1 << 40)), "accepted >="),
    "another instance": ("AC-004", changed(ACK, _set("instance_id", bytes(16))), "instance"),
    "an ERROR that says the other thing": (
        "EC-001",
        changed(ERROR, lambda event: _set("retryable", not event.message.retryable)(event)),
        "retryable",
    ),
    "another code": ("HD-001", changed(ERROR, _set("code", int(ErrorCode.IO))), "BAD_FRAME"),
    "a chunk's ERROR without offset": ("CH-011", changed(ERROR, _cleared("offset")), "offset"),
    "holes that are none": ("CO-004", changed(ERROR, _first_hole_longer), "missing"),
    "no holes": ("CO-004", changed(ERROR, _cleared("missing")), "missing"),
    "another checksum": ("CO-001", changed(COMMIT, _grown("crc32c", 1)), "crc32c"),
    "a lower level": ("CO-017", changed(COMMIT, _set("durability", 1)), "DURABLE or more"),
    "seconds of a clock that jumped": ("CO-002", changed(COMMIT, _set("seconds", -5.0)), "seconds"),
    "a feature that nobody asked for": (
        "HE-004",
        changed(HELLO, lambda event: _set_features(event, "resume")),
        "features",
    ),
    "a handle given twice": ("CR-003", changed(CREATE, _set("upload", 1)), ""),
    "an answer twice": ("FR-008", changed(FrameType.SYNC, _twice), "unanswered"),
    "a file that is not whole": (
        "LI-001",
        changed(FrameType.LIST, _cleared("files")),
        "",
    ),
    "bytes that are no frame": ("PI-001", changed(PING, lambda _: b"x" * 64), "a frame of this"),
}

SILENT: dict[str, tuple[str, Lie]] = {
    "no credit": ("FC-003", changed(ACK, lambda _: None)),
    "no answer": ("PI-001", changed(PING, lambda _: None)),
    "no reason for the end": ("HD-001", changed(ERROR, lambda _: None)),
    "no word about a chunk": ("CH-011", changed(ERROR, lambda _: None)),
}


def _set_features(event: Control, *features: str) -> Control:
    event.message.ClearField("features")
    event.message.features.extend(features)
    return event


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_fails_its_case(
    name: str, daemon: Daemon, behind: Behind, judge: Judge
) -> None:
    case_id, lie, expected = LIES[name]
    honest = Target(daemon.unix, timeout_s=TIMEOUT_S)
    await honest.probe()
    [before] = await judge(honest, case_id)
    assert before.outcome == PASSED, "the case passes where nothing is changed"
    async with behind(daemon, lie) as url:
        target = Target(url, timeout_s=TIMEOUT_S)
        target.facts = honest.facts
        [result] = await judge(target, case_id)
    assert result.outcome == FAILED
    assert expected in result.expected


@pytest.mark.parametrize("name", SILENT)
async def test_silence_fails_its_case_in_bounded_time(
    name: str, daemon: Daemon, behind: Behind, judge: Judge
) -> None:
    case_id, lie = SILENT[name]
    async with behind(daemon, lie) as url:
        target = Target(url, timeout_s=SHORT_S)
        await target.probe() if case_id != "PI-001" else None
        [result] = await judge(target, case_id)
    assert result.outcome == FAILED
    assert "nothing within" in result.got or "the end" in result.got


async def test_a_case_without_its_features_is_skipped_not_passed(
    daemon: Daemon, behind: Behind, judge: Judge
) -> None:
    async with behind(daemon, changed(HELLO, _set_features)) as url:
        target = Target(url, timeout_s=TIMEOUT_S)
        await target.probe()
        [result] = await judge(target, "LA-002")
    assert (result.outcome, result.expected) == (SKIPPED, "")
    assert result.got == "the server does not offer resume and lanes"


async def test_nobody_there_is_an_error_of_its_own(tmp_path: str) -> None:
    with pytest.raises(NobodyThereError):
        await Target(UnixUrl(f"{tmp_path}/nobody"), timeout_s=TIMEOUT_S).probe()


async def test_a_server_that_only_closes_fails(
    scripted: Callable[..., object], judge: Judge
) -> None:
    async def close(_: ScriptedServer) -> None:
        pass

    url = await scripted(close)  # type: ignore[misc]  # a fixture's own type
    target = Target(url, timeout_s=TIMEOUT_S)
    [result] = await judge(target, "HE-001")
    assert (result.outcome, result.got) == (FAILED, "the end of the stream")


async def test_a_case_that_never_ends_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    async def forever(_: Target) -> None:
        await trio.sleep_forever()

    case = Case("XX-001", "PING", "It ends.", forever)
    target = Target(UnixUrl("/nowhere"), timeout_s=TIMEOUT_S)
    [result] = await run(target, [case], lambda _: None)
    assert result.outcome == FAILED
    assert result.got == f"none within {WAITS_MAX * TIMEOUT_S:.0f} s"


async def test_results_come_in_order_and_as_they_are() -> None:
    async def passes(_: Target) -> None:
        pass

    async def fails(_: Target) -> None:
        raise FailedError("this", "that")

    async def skips(_: Target) -> None:
        raise SkippedError("no")

    looks = (passes, fails, skips)
    cases = [Case(f"XX-{n:03}", "PING", "R.", look) for n, look in enumerate(looks)]
    told: list[Result] = []
    results = await run(Target(UnixUrl("/nowhere")), cases, told.append)
    assert told == results
    assert [(r.outcome, r.expected, r.got) for r in results] == [
        (PASSED, "", ""),
        (FAILED, "this", "that"),
        (SKIPPED, "", "no"),
    ]
