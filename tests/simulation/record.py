"""The record of a campaign: which seeds were run at which commit, what they did, which failed.

A file of JSON that every run goes on with: seeds are a range without a gap, and each part of it
names its commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.tally import Tally

if TYPE_CHECKING:
    from tests.simulation.campaign import Batch

ROOT = Path(__file__).parents[2]

GIT = [
    "git",
    "-C",
    str(ROOT),
    "describe",
    "--always",
    "--abbrev=12",
    "--dirty=+changes",
    "--exclude=*",
]


class Record:
    """Parts of a campaign from the seed `first` on, the last one open: batches are added to it."""

    def __init__(self, first: int, into: Path | None = None) -> None:
        """Begin a record, or go on with the one in `into`."""
        self.first = self.next = first
        self._into = into
        self._parts: list[dict[str, Any]] = []
        if into is not None and into.exists():
            self._parts = json.loads(into.read_text())["parts"]
            self.first = self._parts[0]["first"]
            self.next = self._parts[-1]["end"]
        self._began = time.monotonic()
        self._part = self._open_part()
        self._seconds_before = self._part["seconds"]
        self._tally = _tally(self._part)

    @property
    def tally(self) -> Tally:
        """Everything, in all parts."""
        total = Tally()
        total.add(self._tally)
        for part in self._parts[:-1]:
            total.add(_tally(part))
        return total

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The seeds that failed, in all parts."""
        return [failure for part in self._parts for failure in part["failures"]]

    def add(self, batch: Batch) -> None:
        """Count the next batch."""
        assert batch.seeds.start == self.next
        self.next = batch.seeds.stop
        self._tally.add(batch.tally)
        for failure in batch.failures:
            shown = {"seed": failure.seed, "again": failure.again, "what": failure.what}
            self._part["failures"].append(shown)

    def save(self) -> None:
        """Write it, whole or not at all."""
        tally, part = self._tally, self._part
        part["end"] = self.next
        part["seconds"] = self._seconds_before + round(time.monotonic() - self._began, 1)
        part["ended"] = _now()
        part |= {
            "operations": tally.operations,
            "requests": tally.requests,
            "faults": tally.faults,
            "restarts": tally.restarts,
            "counts": dict(sorted(tally.counts.items())),
        }
        if self._into is None or self.next == part["first"]:
            return
        whole = self._into.with_suffix(".part")
        whole.write_text(json.dumps({"parts": self._parts}, indent=1) + "\n")
        os.replace(whole, self._into)

    def _open_part(self) -> dict[str, Any]:
        """Go on with the last part at the same commit; else the result is a new one."""
        commit = commit_now()
        if not self._parts or self._parts[-1]["commit"] != commit:
            new = {"commit": commit, "first": self.next, "end": self.next, "began": _now()}
            self._parts.append({**new, "seconds": 0.0, "failures": []})
        return self._parts[-1]


def commit_now() -> str:
    """Name the commit that is run, "+changes" when files differ from it; "none" without git."""
    try:
        done = subprocess.run(GIT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return done.stdout.strip() or "none"


def _tally(part: dict[str, Any]) -> Tally:
    return Tally(
        part["end"] - part["first"],
        part.get("operations", 0),
        part.get("requests", 0),
        Counter(part.get("counts", {})),
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
