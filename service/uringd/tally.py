"""What `put --recursive` has done so far, on a terminal and at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from uringd.client import Watcher

if TYPE_CHECKING:
    from types import TracebackType

    import rich.status

SHOWN_S = 0.2
"""How often the terminal's line is renewed."""

REMARKS_MAX = 1000
"""Sentences that are kept: beyond it the directory is the wrong one, or the disk is full."""


class Tally(Watcher):
    """Counts files and bytes; shows them on a terminal unless `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.published = self.unchanged = self.skipped = 0
        self.published_bytes = 0
        self.refused = self.local = 0
        self.remarks: list[str] = []
        self._started = time.monotonic()
        self._shown = 0.0
        self._status: rich.status.Status | None = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  # slow to import, and seldom shown

            self._status = Console(stderr=True).status("")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def failed(self) -> int:
        """Files that are not on the server, and should be."""
        return self.refused + self.local

    def was_published(self, size: int, *, unchanged: bool) -> None:
        """Count a file of `size` bytes that is on the server."""
        if unchanged:
            self.unchanged += 1
        else:
            self.published += 1
            self.published_bytes += size
        self._show()

    def was_refused(self, name: str, reason: str) -> None:
        """Count a file that the server did not take."""
        self.refused += 1
        self._note(f"{_sayable(name)}: {reason}")

    def skipped_one(self, path: str, reason: str) -> None:
        """Count what is no regular file."""
        self.skipped += 1
        self._note(f"skipped {_sayable(path)}: it is {reason}")

    def unreadable(self, path: str, reason: str) -> None:
        """Count what could not be read."""
        self.local += 1
        self._note(f"cannot read {_sayable(path)}: {reason}")

    def facts(self) -> dict[str, Any]:
        """Return the summary for programs."""
        seconds = time.monotonic() - self._started
        return {
            "published": self.published,
            "published_bytes": self.published_bytes,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": round(seconds, 3),
            "files_per_s": round(self.published / seconds, 1) if seconds else 0.0,
            "remarks": self.remarks,
        }

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = f"{self.published / seconds:,.0f} files/s"
        mib = self.published_bytes / 2**20
        text = f"{self.published:,} files published, {mib:,.1f} MiB in {seconds:.1f} s ({rate}, "
        text += f"{mib / seconds:,.1f} MiB/s)"
        for count, what in (
            (self.unchanged, "there already"),
            (self.skipped, "skipped"),
            (self.failed, "failed"),
        ):
            if count:
                text += f", {count:,} {what}"
        return text

    def _note(self, sentence: str) -> None:
        if len(self.remarks) < REMARKS_MAX:
            self.remarks.append(sentence)

    def _show(self) -> None:
        if self._status is not None and time.monotonic() - self._shown >= SHOWN_S:
            self._shown = time.monotonic()
            self._status.update(str(self))


def _sayable(path: str) -> str:
    """Return a path as a terminal can show it, also one that is not UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
