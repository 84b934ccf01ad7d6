"""Campaigns: many seeds by several processes, in a record that the next run goes on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.simulation import record
from tests.simulation.campaign import Batch, run_batch
from tests.simulation.conftest import ROOT
from tests.simulation.mutants import conflicts_not_detected
from tests.simulation.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SIMULATE = [
    sys.executable,
    "-I" if sys.flags.isolated else "-P",
    str(ROOT / "tests/simulation/simulate.py"),
]
CHILD_S = 60


def simulate(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*SIMULATE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=CHILD_S)


def parts_of(path: Path) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads(path.read_text())["parts"]
    return parts


def test_several_processes_run_what_one_does(tmp_path: Path) -> None:
    parts = []
    for jobs in (1, 3):
        into = tmp_path / f"{jobs}.json"
        done = simulate("--seeds", 24, "--seed", 40, "--jobs", jobs, "--json", into)
        assert done.returncode == 0, done.stderr
        parts += parts_of(into)
    one, three = parts
    assert one["counts"] == three["counts"]
    assert (one["operations"], one["requests"]) == (three["operations"], three["requests"])
    assert one["end"] == three["end"] == 64


def test_seeds_behind_one_that_fails_are_run() -> None:
    with conflicts_not_detected():
        batch = run_batch(range(3, 6))
    assert [failure.seed for failure in batch.failures] == [3, 4, 5]
    assert batch.tally.seeds == 3


def test_the_next_run_goes_on_behind_the_last_seed(tmp_path: Path) -> None:
    into = tmp_path / "record.json"
    first = simulate("--seeds", 3, "--seed", 40, "--json", into)
    assert first.returncode == 0, first.stderr
    operations = parts_of(into)[0]["operations"]
    second = simulate("--seeds", 8, "--json", into, "--jobs", 2)
    assert second.returncode == 0, second.stderr
    [part] = parts_of(into)
    assert (part["first"], part["end"], part["failures"]) == (40, 48, [])
    assert part["operations"] > operations > 0
    assert "seeds 40 to 47" in second.stdout
    assert simulate("--seeds", 8, "--json", into).returncode == 0
    assert parts_of(into)[0]["end"] == 48


def test_another_commit_is_another_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into = tmp_path / "record.json"
    for number, commit in enumerate(["one", "two", "two"]):
        monkeypatch.setattr(record, "commit_now", lambda commit=commit: commit)
        part = Record(7, into)
        part.add(Batch(range(7 + number, 8 + number)))
        part.save()
    assert [(p["commit"], p["first"], p["end"]) for p in parts_of(into)] == [
        ("one", 7, 8),
        ("two", 8, 10),
    ]


def test_an_interrupt_ends_it_with_what_was_counted(tmp_path: Path) -> None:
    into = tmp_path / "record.json"
    command = [*SIMULATE, "--seconds", str(CHILD_S), "--seed", "40", "--json", str(into)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=CHILD_S)
    assert process.returncode == 0
    assert "seeds, " in told and "interrupted" in rest
    [part] = parts_of(into)
    assert part["end"] > 40
    assert f"seeds 40 to {part['end'] - 1}" in rest


def test_a_record_of_other_seeds_is_not_gone_on_with(tmp_path: Path) -> None:
    into = tmp_path / "record.json"
    assert simulate("--seeds", 1, "--seed", 40, "--json", into).returncode == 0
    done = simulate("--seeds", 1, "--seed", 41, "--json", into)
    assert done.returncode == 2
    assert "has the seeds from 40 on" in done.stderr
    done = simulate("--seeds", 1, "--json", into, "--clients", 1)
    assert done.returncode == 2
    assert "of whole seeds" in done.stderr
