"""Rounds: every contender once, in an order that moves on, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.contenders import CONTENDERS
from bench.harness.content import expected_crc, file_crc
from bench.harness.daemon import PYTHON
from bench.harness.measurement import CannotRunError, Job, Measurement
from bench.harness.quiet import fresh_directory, wait_for_rest
from bench.harness.results import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.harness.memory import MemoryFiller
    from bench.harness.results import Result

CHILD = Path(__file__).with_name("child.py")
CHILD_TIMEOUT_S = 900.0
"""A slow disk writes 2 GiB in two minutes; what hangs must not hang for ever."""
END_TIMEOUT_S = 10.0
"""What a child gets to clean up after SIGTERM."""


class ContentError(Exception):
    """A contender's file is not what it was told to write."""


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
    before: Callable[[int, str], None]
    after: Callable[[Run], None]

    def run(self) -> None:
        """Run them. A contender that cannot do its job is left out from then on.

        Raises ContentError for a wrong file: figures of wrong bytes are worth nothing.
        """
        for number, position, name in self._order():
            if name in self.result.missing:
                continue
            self.before(number, name)
            directory = fresh_directory(self.directory / "run")
            rested = wait_for_rest(directory, self.result.settings.rest_timeout_s)
            if self.filler is not None:
                self.filler.fill()
            try:
                measurement = measure(self._job(name, directory))
                self._check(name, measurement)
            except CannotRunError as exc:
                self.result.missing[name] = str(exc)
                continue
            run = Run(number, position, name, rested, measurement)
            self.result.runs.append(run)
            self.after(run)
        fresh_directory(self.directory / "run").rmdir()

    def _order(self) -> Iterator[tuple[int, int, str]]:
        for number in range(self.result.settings.rounds):
            for position, name in enumerate(rotated(self.result.settings.contenders, number)):
                yield number, position, name

    def _job(self, name: str, directory: Path) -> Job:
        settings = self.result.settings
        source = str(self.source) if CONTENDERS[name].uploads else ""
        return Job(
            contender=name,
            directory=str(directory),
            size_bytes=settings.size_bytes,
            block_bytes=settings.block_bytes,
            depth=settings.depth,
            rest_timeout_s=settings.rest_timeout_s,
            source=source,
        )

    def _check(self, name: str, measurement: Measurement) -> None:
        """Compare the size always, and the content once, where it is known."""
        settings = self.result.settings
        path = Path(measurement.path)
        if path.stat().st_size != settings.size_bytes:
            raise ContentError(
                f"{name} left {path.stat().st_size} bytes instead of {settings.size_bytes}"
            )
        if name in self.result.checked or not CONTENDERS[name].checked:
            return
        found = file_crc(path, settings.block_bytes)
        if found != expected_crc(settings.size_bytes, settings.block_bytes):
            raise ContentError(f"{name} wrote other bytes than it was given (CRC32C {found:#x})")
        self.result.checked.append(name)


def measure(job: Job) -> Measurement:
    """Measure in a child. Raises CannotRunError with its last words."""
    process = subprocess.Popen(
        [*PYTHON, str(CHILD), job.to_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
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
        return Measurement.from_json(said.strip().splitlines()[-1])
    except (IndexError, TypeError, json.JSONDecodeError) as exc:
        raise CannotRunError("its process said nothing that can be read") from exc
