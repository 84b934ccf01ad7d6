"""What one contender is told, and what it tells back: one JSON text each way.

Every measurement has a process of its own, so that peak memory and CPU time are its own too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.harness.cell import Cell
from bench.harness.meter import Usage, peak_rss_bytes


@dataclass(frozen=True, slots=True)
class Order:
    """One measurement to make.

    `directory` is new, and whoever made it removes it; it is empty, but for the target where that
    is to be written into. `rest_timeout_s` is how long to wait for the disk to do nothing, where
    that is called for. `source` is the file an upload reads.
    """

    contender: str
    directory: str
    cell: Cell
    rest_timeout_s: float
    source: str = ""

    @property
    def target(self) -> Path:
        """Where a contender writes its file."""
        return Path(self.directory) / "file"

    def to_json(self) -> str:
        """As the child's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"cell": Cell.from_json(fields["cell"])}))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one measurement found.

    `seconds` is the time that counts (the contender's entry says from where to where), `wall_s`
    the time around all of it. `user_s` and `system_s` are CPU seconds of the contender with its
    io-wq workers; `kworkers_s` those of kernel threads of the whole machine, None where they cannot
    be seen; `others_s` those of all other processes, which is the noise. `rss_bytes` is the peak.
    `path` is the file to check, or nothing where the child has compared what it wrote itself: then
    `wrong` says what was not as it should be. `facts` is what the contender says about itself.
    """

    seconds: float
    wall_s: float
    user_s: float
    system_s: float
    kworkers_s: float | None
    others_s: float
    rss_bytes: int | None
    path: str
    facts: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""

    @classmethod
    def of_this_process(
        cls, order: Order, usage: Usage, facts: dict[str, Any] | None = None
    ) -> Self:
        """Make it from a stretch of this process's life, all of which counts."""
        return cls(
            seconds=usage.wall_s,
            wall_s=usage.wall_s,
            user_s=usage.user_s,
            system_s=usage.system_s,
            kworkers_s=usage.kworkers_s,
            others_s=usage.others_s(usage.user_s + usage.system_s),
            rss_bytes=peak_rss_bytes(),
            path=str(order.target),
            facts=facts or {},
        )

    def to_json(self) -> str:
        """As the child's only line on stdout."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


class CannotRunError(Exception):
    """A contender cannot do its job here: the text is one sentence that says why."""


class DiskFullError(Exception):
    """The disk is full: no contender can go on."""
