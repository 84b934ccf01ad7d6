"""rounds.py: the order, and what a contender that fails does to the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.harness import rounds
from bench.harness.content import write_source
from bench.harness.measurement import CannotRunError, Job
from bench.harness.rounds import ContentError, Rounds, measure, rotated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.harness.measurement import Measurement
    from bench.harness.results import Result, Run
    from tests.bench.conftest import MakeResult

    Play = Callable[[Job], Measurement]
    RunRounds = Callable[[Sequence[str], Play], tuple[Result, list[tuple[int, str]]]]

SIZE = 4 << 20


def test_the_order_moves_on_by_one_a_round_and_comes_round() -> None:
    assert rotated("abc", 0) == ["a", "b", "c"]
    assert rotated("abc", 1) == ["b", "c", "a"]
    assert rotated("abc", 3) == ["a", "b", "c"]
    assert rotated([], 2) == []


@pytest.fixture
def run_rounds(
    make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunRounds:
    """Run two rounds of the contenders, with `play(job)` in the place of a child."""

    def run(names: Sequence[str], play: Play) -> tuple[Result, list[tuple[int, str]]]:
        result = make_result({name: [] for name in names})
        object.__setattr__(result.settings, "size_bytes", SIZE)
        object.__setattr__(result.settings, "rounds", 2)
        object.__setattr__(result.settings, "rest_timeout_s", 0)
        monkeypatch.setattr(rounds, "measure", play)
        started: list[tuple[int, str]] = []
        seen: list[Run] = []
        source = tmp_path / "source"
        Rounds(result, tmp_path, source, None, lambda *run: started.append(run), seen.append).run()
        assert seen == result.runs
        return result, started

    return run


@pytest.fixture
def write(make_result: MakeResult) -> Play:
    """Stand in for a contender that writes what it should."""

    def play(job: Job) -> Measurement:
        write_source(job.target, job.size_bytes, job.block_bytes)
        (found,) = make_result({job.contender: [1.0]}, path=str(job.target)).runs
        return found.measurement

    return play


def test_every_contender_runs_once_a_round_and_nothing_is_left(
    run_rounds: RunRounds, write: Play, tmp_path: Path
) -> None:
    result, started = run_rounds(["os-write", "uringio-slots"], write)
    assert started == [(0, "os-write"), (0, "uringio-slots"), (1, "uringio-slots"), (1, "os-write")]
    assert [run.position for run in result.runs] == [0, 1, 0, 1]
    assert result.checked == ["os-write", "uringio-slots"]
    assert list(tmp_path.iterdir()) == []


def test_a_contender_that_cannot_run_is_left_out_and_the_reason_kept(
    run_rounds: RunRounds, write: Play
) -> None:
    def play(job: Job) -> Measurement:
        if job.contender == "fio":
            raise CannotRunError("fio is not installed")
        return write(job)

    result, started = run_rounds(["fio", "os-write"], play)
    assert result.missing == {"fio": "fio is not installed"}
    assert [name for _, name in started] == ["fio", "os-write", "os-write"]


def test_a_wrong_byte_ends_the_run(run_rounds: RunRounds, write: Play) -> None:
    def play(job: Job) -> Measurement:
        found = write(job)
        with job.target.open("r+b") as file:
            file.seek(job.size_bytes // 2)
            file.write(b"wrong")
        return found

    with pytest.raises(ContentError, match="os-write wrote other bytes"):
        run_rounds(["os-write"], play)


def test_a_wrong_size_ends_the_run_also_where_the_content_is_not_known(
    run_rounds: RunRounds, write: Play
) -> None:
    def play(job: Job) -> Measurement:
        found = write(job)
        job.target.write_bytes(b"short")
        return found

    with pytest.raises(ContentError, match="5 bytes instead of 4194304"):
        run_rounds(["fio"], play)


def test_a_child_says_in_one_sentence_why_it_cannot(tmp_path: Path) -> None:
    job = Job("os-write", str(tmp_path / "missing"), SIZE, 1 << 20, 16, 0)
    with pytest.raises(CannotRunError, match="No such file or directory"):
        measure(job)


def test_a_child_measures_one_job(tmp_path: Path) -> None:
    found = measure(Job("os-write", str(tmp_path), SIZE, 1 << 20, 16, 0))
    assert found.seconds > 0
    assert found.wall_s >= found.seconds
    assert found.rss_bytes
    assert (tmp_path / "file").stat().st_size == SIZE
