"""What is seen while it runs: a bar on a terminal, a line for each measurement everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.harness.pace import Pace, time_text
from bench.harness.scale import Scale, scale_of
from bench.harness.units import MIB

if TYPE_CHECKING:
    from types import TracebackType

    from bench.harness.cell import Cell
    from bench.harness.jobs import Job
    from bench.harness.results import Result, Run


class Display:
    """Watches rounds, from entering to leaving."""

    def __init__(self, result: Result) -> None:
        settings = result.settings
        keys = [
            (job.name, cell.name, name)
            for job in settings.jobs
            for cell in job.cells
            for name in job.contenders
            if name not in cell.without
        ]
        self._result = result
        self._keys = keys
        self._pace = Pace(keys, settings.rounds)
        self._key = ("", "", "")
        self._megabytes = 0.0
        self._scale = Scale(1, "MiB/s", 0, 1, "CPU s/GiB", 2)
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:42}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=self._pace.total, left="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take it away."""
        self._progress.stop()

    def say(self, what: str) -> None:
        """Say what is being done before and between measurements."""
        self._progress.update(self._task, description=what)

    def begin(self, number: int, job: Job, cell: Cell, name: str) -> None:
        """Show what is being measured."""
        self._key = (job.name, cell.name, name)
        self._megabytes = cell.size_bytes / MIB
        self._scale = scale_of(job, cell)
        self.say(f"{number + 1}/{self._result.settings.rounds} {job.name} {cell.name} {name}")
        self._pace.begin()

    def end(self, run: Run | None) -> None:
        """Show what came out, and how long the rest will take."""
        job, cell, name = self._key
        self._pace.end(self._key)
        if run is None:  # it is left out of the job from now on
            for key in self._keys:
                if (key[0], key[2]) == (job, name):
                    self._pace.drop(key)
        left = f"about {time_text(self._pace.left_s())} left"
        self._progress.update(
            self._task, completed=self._pace.done, total=self._pace.total, left=left
        )
        what = "cannot"
        if run is not None:
            rate = self._megabytes / run.measurement.seconds * self._scale.rate
            what = f"{rate:.{self._scale.rate_digits}f} {self._scale.rate_name}"
        count = f"{self._pace.done} of {self._pace.total}"
        line = f"{job:9} {cell:14} {name:18} {what:>19}  ({count}, {left})"
        self._console.print(line, highlight=False, soft_wrap=True)
