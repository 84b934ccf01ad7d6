"""What the server holds while it works: memory, pinned pages, descriptors, threads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES_WANTED = 1800
"""Samples of a run: a plot shows no more, and each costs the server nothing."""

SAMPLE_S_MIN = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process. `seconds` since the watch began; `carried_bytes` were published."""

    seconds: float
    rss_bytes: int
    pinned_bytes: int
    descriptors: int
    threads: int
    carried_bytes: int


def look(pid: int, seconds: float = 0.0, carried_bytes: int = 0) -> Sample:
    """Look at a process by proc(5)."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Sample(
        seconds,
        int(status["VmRSS"].split()[0]) << 10,
        int(status["VmPin"].split()[0]) << 10,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
        carried_bytes,
    )


class Watch:
    """Samples a process until it is cancelled. `carried` tells how many bytes were published."""

    def __init__(self, pid: int, carried: Callable[[], int]) -> None:
        self._pid = pid
        self._carried = carried
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    async def run(self, total_s: float) -> None:
        """Look again and again, SAMPLES_WANTED times in `total_s` seconds."""
        gap_s = max(SAMPLE_S_MIN, total_s / SAMPLES_WANTED)
        while True:
            seconds = time.monotonic() - self._began
            self.samples.append(look(self._pid, seconds, self._carried()))
            await trio.sleep(gap_s)
