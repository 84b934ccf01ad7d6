"""Rounds: each contender of each cell once, in an order that moves on, in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from bench.harness.contenders import CONTENDERS
from bench.harness.content import expected_crc, file_crc
from bench.harness.daemon import PYTHON
from bench.harness.measurement import CannotRunError, DiskFullError, Measurement, Order
from bench.harness.prepare import lay_out
from bench.harness.quiet import fresh_directory, set_aside, wait_for_rest
from bench.harness.resident import cached_bytes
from bench.harness.results import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.harness.cell import Cell
    from bench.harness.jobs import Job
    from bench.harness.memory import MemoryFiller
    from bench.harness.results import Result

CHILD = Path(__file__).with_name("child.py")
CHILD_TIMEOUT_S = 900.0
"""A slow disk writes 2 GiB in two minutes; what hangs must not hang for ever."""
END_TIMEOUT_S = 10.0
"""What a child gets to clean up after SIGTERM."""

T = TypeVar("T")


class ContentError(Exception):
    """A contender's file is not what it was told to write."""


class Watcher(Protocol):
    """Who is told how it goes."""

    def begin(self, number: int, job: Job, cell: Cell, name: str) -> None:
        """Hear that a measurement begins, in round `number`."""

    def end(self, run: Run | None) -> None:
        """Hear what became of it: None when the contender cannot do the job."""


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Move the first `by` names to the end: who is first must not be first every time."""
    if not names:
        return []
    by %= len(names)
    return [*names[by:], *names[:by]]


@dataclass(slots=True)
class Rounds:
    """Runs all rounds in `directory`, and puts what it finds into `result` as it finds it.

    With a `filler`, memory is in use before each measurement; without, it is as it is.
    """

    result: Result
    directory: Path
    source: Path
    filler: MemoryFiller | None
    watcher: Watcher

    def run(self) -> None:
        """Run them. A contender that cannot do its job is left out of that job from then on.

        Raises ContentError for a wrong file: figures of wrong bytes are worth nothing. However it
        ends, `result` has whole cells only: who ran in one ran beside all the others.
        """
        for number in range(self.result.settings.rounds):
            for job in self.result.settings.jobs:
                for cell in job.cells:
                    before = len(self.result.runs)
                    try:
                        self._run_cell(number, job, cell)
                    except BaseException:
                        del self.result.runs[before:]
                        raise
        fresh_directory(self.directory / "run").rmdir()

    def _run_cell(self, number: int, job: Job, cell: Cell) -> None:
        missing = self.result.missing.setdefault(job.name, {})
        for position, name in enumerate(rotated(job.contenders, number)):
            if name in missing or name in cell.without:
                continue
            self.watcher.begin(number, job, cell, name)
            run = None
            try:
                rested, measurement = self._measure(cell, name)
                cached = cached_bytes(Path(measurement.path)) if measurement.path else None
                self._check(job, cell, name, measurement)
            except CannotRunError as exc:
                if os.strerror(errno.ENOSPC) in str(exc):
                    raise DiskFullError(f"the disk is full: {name} said {exc}") from exc
                missing[name] = str(exc).rstrip(".")
            else:
                run = Run(number, position, job.name, cell.name, name, rested, cached, measurement)
                self.result.runs.append(run)
            if cell.files_are_small:
                set_aside(self.directory / "run")
            self.watcher.end(run)

    def _measure(self, cell: Cell, name: str) -> tuple[bool, Measurement]:
        contender = CONTENDERS[name]
        reason = contender.why_not(cell)
        if reason:
            raise CannotRunError(reason)
        directory = fresh_directory(self.directory / "run")
        timeout_s = self.result.settings.rest_timeout_s
        source = str(self.source) if contender.uploads else ""
        order = Order(name, str(directory), cell, timeout_s, source)
        lay_out(order.target, cell)
        rested = wait_for_rest(directory, timeout_s)
        if self.filler is not None:
            self.filler.fill()
        return rested, measure(order)

    def _check(self, job: Job, cell: Cell, name: str, measurement: Measurement) -> None:
        """Compare the size always, and the content once, where it is known."""
        if measurement.wrong:
            raise ContentError(f"{name} left other bytes than it was given: {measurement.wrong}")
        what = f"{job.name}/{cell.name}/{name}"
        if not measurement.path:
            self.result.checked += [what] * (what not in self.result.checked)
            return
        path = Path(measurement.path)
        if path.stat().st_size != cell.size_bytes:
            raise ContentError(
                f"{name} left {path.stat().st_size} bytes instead of {cell.size_bytes}"
            )
        contender = CONTENDERS[name]
        if what in self.result.checked or not contender.checked:
            return
        found = file_crc(path, cell.block_bytes)
        different = contender.different_blocks(cell)
        if found != expected_crc(cell.size_bytes, cell.block_bytes, different):
            raise ContentError(f"{name} wrote other bytes than it was given (CRC32C {found:#x})")
        self.result.checked.append(what)


def measure(order: Order) -> Measurement:
    """Measure in a child. Raises CannotRunError with its last words."""
    return ask_child([*PYTHON, str(CHILD), order.to_json()], Measurement.from_json)


def ask_child(command: Sequence[str], read: Callable[[str], T]) -> T:
    """Run a child and read its last line. Raises CannotRunError with its last words."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complained = process.communicate(timeout=CHILD_TIMEOUT_S)
    except BaseException as exc:
        process.terminate()
        try:
            process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if isinstance(exc, subprocess.TimeoutExpired):
            raise CannotRunError(f"was not done after {CHILD_TIMEOUT_S:.0f} s") from exc
        raise
    if process.returncode:
        lines = complained.strip().splitlines() or [f"exit code {process.returncode}"]
        raise CannotRunError(lines[-1])
    try:
        return read(said.strip().splitlines()[-1])
    except (IndexError, TypeError, json.JSONDecodeError) as exc:
        raise CannotRunError("its process said nothing that can be read") from exc
