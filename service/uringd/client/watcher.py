"""Who wants to know how an upload gets on: a progress bar, a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uringd.errors import ClientError


class Watcher:
    """What an upload tells, at the moment it happens; this one keeps it to itself."""

    def advance(self, count: int) -> None:
        """Count bytes that were sent for the first time, or are on the server already."""

    def reconnecting(self, reason: ClientError) -> None:
        """Hear that a connection was lost; it is made again."""

    def connected(self) -> None:
        """Hear that the upload goes on."""
