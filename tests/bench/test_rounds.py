"""rounds.py: the order, and what a contender that fails does to the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.harness import rounds
from bench.harness.cell import SMALL_FILE_BYTES_MAX, Cell
from bench.harness.content import write_source
from bench.harness.measurement import CannotRunError, DiskFullError, Order
from bench.harness.rounds import ContentError, Rounds, measure, rotated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.harness.jobs import Job
    from bench.harness.measurement import Measurement
    from bench.harness.results import Result, Run
    from tests.bench.conftest import MakeResult
    from tests.conftest import MakeFileSystem

    Play = Callable[[Order], Measurement]

SIZE = 4 << 20
CELL = Cell("fresh", SIZE, 1 << 20, 16)


class Watching:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, str, str]] = []
        self.ended: list[Run | None] = []

    def begin(self, number: int, job: Job, cell: Cell, name: str) -> None:
        self.begun.append((number, cell.name, name))

    def end(self, run: Run | None) -> None:
        self.ended.append(run)


class Running:
    """Two rounds of some contenders, with `play(order)` in the place of a child."""

    def __init__(self, result: Result, directory: Path) -> None:
        object.__setattr__(result.settings, "rounds", 2)
        object.__setattr__(result.settings, "rest_timeout_s", 0)
        self.result = result
        self.watching = Watching()
        self.rounds = Rounds(result, directory, directory / "source", None, self.watching)


@pytest.fixture
def running(
    make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[str], Play], Running]:
    def make(names: Sequence[str], play: Play) -> Running:
        monkeypatch.setattr(rounds, "measure", play)
        return Running(make_result({name: [] for name in names}, cell=CELL), tmp_path)

    return make


@pytest.fixture
def write(make_result: MakeResult) -> Play:
    """Stand in for a contender that writes what it should."""

    def play(order: Order) -> Measurement:
        write_source(order.target, order.cell.size_bytes, order.cell.block_bytes)
        (found,) = make_result({order.contender: [1.0]}, path=str(order.target)).runs
        return found.measurement

    return play


def test_the_order_moves_on_by_one_a_round_and_comes_round() -> None:
    assert rotated("abc", 0) == ["a", "b", "c"]
    assert rotated("abc", 1) == ["b", "c", "a"]
    assert rotated("abc", 3) == ["a", "b", "c"]
    assert rotated([], 2) == []


def test_every_contender_runs_once_a_round_and_nothing_is_left(
    running: Callable[[Sequence[str], Play], Running], write: Play, tmp_path: Path
) -> None:
    run = running(["os-write", "uringio-slots"], write)
    run.rounds.run()
    assert [(number, name) for number, _, name in run.watching.begun] == [
        (0, "os-write"),
        (0, "uringio-slots"),
        (1, "uringio-slots"),
        (1, "os-write"),
    ]
    assert [found.position for found in run.result.runs] == [0, 1, 0, 1]
    assert run.watching.ended == run.result.runs
    assert run.result.checked == ["fresh/1 MiB QD16/os-write", "fresh/1 MiB QD16/uringio-slots"]
    assert {found.cached_bytes for found in run.result.runs} == {SIZE}
    assert list(tmp_path.iterdir()) == []


def test_small_files_of_every_measurement_stay_to_the_end(
    make_result: MakeResult, write: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "measure", write)
    cell = replace(CELL, pattern="uploads", block_bytes=SMALL_FILE_BYTES_MAX)
    monkeypatch.setattr(Rounds, "_check", lambda *_: None)  # it is of one file
    Running(make_result({"os-write": []}, cell=cell), tmp_path).rounds.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0", "run-1"]


def test_a_contender_that_cannot_run_is_left_out_and_the_reason_kept(
    running: Callable[[Sequence[str], Play], Running], write: Play
) -> None:
    def play(order: Order) -> Measurement:
        if order.contender == "fio":
            raise CannotRunError("fio is not installed.")
        return write(order)

    run = running(["fio", "os-write"], play)
    run.rounds.run()
    assert run.result.missing == {"fresh": {"fio": "fio is not installed"}}
    assert [name for _, _, name in run.watching.begun] == ["fio", "os-write", "os-write"]
    assert run.watching.ended[0] is None


def test_a_contender_is_not_started_for_what_it_cannot_do(
    running: Callable[[Sequence[str], Play], Running], write: Play
) -> None:
    run = running(["os-write"], write)
    (job,) = run.result.settings.jobs
    timed = replace(job, cells=(replace(CELL, timed=True),))
    object.__setattr__(run.result.settings, "jobs", (timed,))
    run.rounds.run()
    assert "page cache" in run.result.missing["fresh"]["os-write"]
    assert run.result.runs == []


def test_what_is_interrupted_has_whole_cells_only(
    running: Callable[[Sequence[str], Play], Running], write: Play
) -> None:
    started = 0

    def play(order: Order) -> Measurement:
        nonlocal started
        started += 1
        if started == 4:
            raise KeyboardInterrupt
        return write(order)

    run = running(["os-write", "uringio-slots"], play)
    with pytest.raises(KeyboardInterrupt):
        run.rounds.run()
    assert [(found.round, found.contender) for found in run.result.runs] == [
        (0, "os-write"),
        (0, "uringio-slots"),
    ]


def test_a_wrong_byte_ends_the_run(
    running: Callable[[Sequence[str], Play], Running], write: Play
) -> None:
    def play(order: Order) -> Measurement:
        found = write(order)
        with order.target.open("r+b") as file:
            file.seek(order.cell.size_bytes // 2)
            file.write(b"wrong")
        return found

    with pytest.raises(ContentError, match="os-write wrote other bytes"):
        running(["os-write"], play).rounds.run()


def test_a_wrong_size_ends_the_run_also_where_the_content_is_not_known(
    running: Callable[[Sequence[str], Play], Running], write: Play
) -> None:
    def play(order: Order) -> Measurement:
        found = write(order)
        order.target.write_bytes(b"short")
        return found

    with pytest.raises(ContentError, match="5 bytes instead of 4194304"):
        running(["fio"], play).rounds.run()


@pytest.mark.root
def test_a_full_disk_ends_the_run(
    make_result: MakeResult, make_file_system: MakeFileSystem
) -> None:
    cell = Cell("fresh", 64 << 20, 1 << 20, 16)
    run = Running(make_result({"os-write": []}, cell=cell), make_file_system("ext4", 32))
    with pytest.raises(DiskFullError, match=r"os-write said .*No space left on device"):
        run.rounds.run()


def test_a_child_says_in_one_sentence_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="No such file or directory"):
        measure(Order("os-write", str(tmp_path / "missing"), CELL, 0))


def test_a_child_measures_one_order(tmp_path: Path) -> None:
    found = measure(Order("os-write", str(tmp_path), CELL, 0))
    assert found.seconds > 0
    assert found.wall_s >= found.seconds
    assert found.rss_bytes
    assert (tmp_path / "file").stat().st_size == SIZE
