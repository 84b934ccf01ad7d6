"""memory.py: free memory is filled, and the filling knows when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.harness import memory
from bench.harness.memory import MemoryFiller, free_memory_bytes

if TYPE_CHECKING:
    from pathlib import Path

STEP = memory.PIECE_BYTES


def test_free_memory_is_known() -> None:
    assert free_memory_bytes() > 0


@pytest.mark.parametrize(("readings", "steps"), [([10, 9, 8, 8], 3), ([10, 10], 1), ([3, 9], 1)])
def test_it_stops_when_reading_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readings: list[int], steps: int
) -> None:
    """A reading is free memory in steps: what a full machine or a control group says."""
    left = iter([reading * STEP for reading in readings])
    monkeypatch.setattr(memory, "STEP_BYTES", STEP)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: next(left))
    path = tmp_path / "hole"
    filler = MemoryFiller(path)
    read: list[int] = []
    monkeypatch.setattr(filler, "_read", read.append)
    assert filler.fill()
    assert read == [STEP] * steps


def test_it_stops_when_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FILL_TIMEOUT_S", 0.0)
    assert not MemoryFiller(tmp_path / "hole").fill()


def test_the_hole_takes_no_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "STEP_BYTES", STEP)
    path = tmp_path / "hole"
    MemoryFiller(path).fill()
    assert path.stat().st_blocks == 0
