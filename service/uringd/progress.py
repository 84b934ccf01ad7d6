"""A progress bar on a terminal: how much, how fast, how long still. Silent everywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from uringd.client import Watcher

if TYPE_CHECKING:
    from types import TracebackType

    import rich.progress

    from uringd.errors import ClientError


class Progress(Watcher):
    """Shows the bytes that were sent of an upload of `size` bytes (None: unknown)."""

    def __init__(self, name: str, size: int | None, *, quiet: bool) -> None:
        self._bar: rich.progress.Progress | None = None
        if quiet or not sys.stderr.isatty():
            return
        from rich import progress  # noqa: PLC0415  # slow to import, and seldom shown
        from rich.console import Console  # noqa: PLC0415

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),  # lines above the bar; a file gets them as ever
        )
        self._name = name
        self._task = self._bar.add_task(name, total=size)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count bytes that were sent, or are there already."""
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def reconnecting(self, reason: ClientError) -> None:  # noqa: ARG002  # it may pass at once
        """Say so in front of the bar."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._name} (reconnecting)")

    def connected(self) -> None:
        """Take that back."""
        if self._bar is not None:
            self._bar.update(self._task, description=self._name)
