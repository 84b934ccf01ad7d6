"""A result: everything one `make bench` measured, as one JSON file that reports are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from bench.harness.contenders import CONTENDERS
from bench.harness.measurement import Measurement

if TYPE_CHECKING:
    from pathlib import Path

    from bench.harness.environment import Environment

Memory = Literal["in-use", "as-is"]
"""Whether the page cache is filled before each run (memory.py)."""

SCHEMA = 1
"""Goes up when a reader of older files would misread newer ones."""


class ResultError(Exception):
    """A file is no result, or one of another schema."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. Sizes in bytes; `depth` is in writes in flight."""

    size_bytes: int
    block_bytes: int
    depth: int
    rounds: int
    rest_timeout_s: float
    memory: Memory
    contenders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement, where in the order it was made, and whether the disk was at rest before."""

    round: int
    position: int
    contender: str
    rested: bool
    measurement: Measurement


@dataclass(slots=True)
class Result:
    """All that was asked and found.

    `missing` has a sentence for each contender that could not do the job here, `checked` the
    contenders whose file was read back and compared.
    """

    settings: Settings
    environment: Environment
    method: list[str]
    runs: list[Run] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)

    def runs_of(self, contender: str) -> list[Run]:
        """Give the runs of one contender, in the order of the rounds."""
        return [run for run in self.runs if run.contender == contender]

    def save(self, path: Path, figures: dict[str, Any]) -> None:
        """Write the JSON. `figures` are derived from the runs, for readers without this code."""
        names = self.settings.contenders
        said = {name: asdict(CONTENDERS[name]) for name in names}
        document = {"schema": SCHEMA, **asdict(self), "contenders": said, "figures": figures}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result. Raises ResultError."""
        try:
            document = json.loads(path.read_text())
            if document["schema"] != SCHEMA:
                raise ResultError(f"{path} has schema {document['schema']}, not {SCHEMA}")
            settings = document["settings"] | {
                "contenders": tuple(document["settings"]["contenders"])
            }
            return cls(
                settings=Settings(**settings),
                environment=document["environment"],
                method=document["method"],
                runs=[_run(fields) for fields in document["runs"]],
                missing=document["missing"],
                checked=document["checked"],
            )
        except (ValueError, LookupError, TypeError) as exc:
            raise ResultError(f"{path} is not a result of bench/run.py") from exc


def _run(fields: dict[str, Any]) -> Run:
    return Run(**(fields | {"measurement": Measurement(**fields["measurement"])}))
