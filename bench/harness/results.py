"""A result: everything one `make bench` measured, as one JSON file that reports are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from bench.harness.cell import Cell
from bench.harness.contenders import CONTENDERS
from bench.harness.jobs import Job
from bench.harness.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.harness.environment import Environment

Memory = Literal["in-use", "as-is"]
"""Whether the page cache is filled before each run (memory.py)."""

SCHEMA = 2
"""Goes up when a reader of older files would misread newer ones."""


class ResultError(Exception):
    """A file is no result, or one of another schema."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for, of which suite (suites.py)."""

    rounds: int
    rest_timeout_s: float
    memory: Memory
    jobs: tuple[Job, ...]
    suite: str = "library"

    def contenders(self) -> list[str]:
        """Name everybody who takes part in a job, each once."""
        return list(dict.fromkeys(name for job in self.jobs for name in job.contenders))


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: of which cell of which job, and where in the order it was made.

    `rested` says whether the disk did nothing before; `cached_bytes` how much of the file the page
    cache held after it, None where the kernel does not say.
    """

    round: int
    position: int
    job: str
    cell: str
    contender: str
    rested: bool
    cached_bytes: int | None
    measurement: Measurement


@dataclass(slots=True)
class Result:
    """All that was asked and found.

    `missing` has, for each job, a sentence for each contender that could not do it here; `checked`
    names the job, cell and contender of every file that was read back and compared. Who was
    `interrupted` has the cells that were finished, each with all its contenders.
    """

    settings: Settings
    environment: Environment
    method: list[str]
    runs: list[Run] = field(default_factory=list)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    interrupted: bool = False

    def runs_of(self, job: Job, cell: Cell, contender: str) -> list[Run]:
        """Give the runs of one contender in one cell, in the order of the rounds."""
        wanted = (job.name, cell.name, contender)
        return [run for run in self.runs if (run.job, run.cell, run.contender) == wanted]

    def save(self, path: Path, derived: Mapping[str, Any]) -> None:
        """Write the JSON. What is `derived` from the runs is for readers without this code."""
        said = {name: asdict(CONTENDERS[name]) for name in self.settings.contenders()}
        document = {"schema": SCHEMA, **asdict(self), "contenders": said, **derived}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result. Raises ResultError."""
        try:
            document = json.loads(path.read_text())
            if document["schema"] != SCHEMA:
                raise ResultError(f"{path} has schema {document['schema']}, not {SCHEMA}")
            settings = document["settings"]
            return cls(
                settings=Settings(**(settings | {"jobs": tuple(map(_job, settings["jobs"]))})),
                environment=document["environment"],
                method=document["method"],
                runs=[_run(fields) for fields in document["runs"]],
                missing=document["missing"],
                checked=document["checked"],
                interrupted=document["interrupted"],
            )
        except (ValueError, LookupError, TypeError) as exc:
            raise ResultError(f"{path} is not a result of bench/run.py") from exc


def _job(fields: dict[str, Any]) -> Job:
    names = {name: tuple(fields[name]) for name in ("over", "contenders")}
    cells = tuple(map(Cell.from_json, fields["cells"]))
    return Job(**(fields | names | {"cells": cells}))


def _run(fields: dict[str, Any]) -> Run:
    return Run(**(fields | {"measurement": Measurement(**fields["measurement"])}))
