"""The other processes of the same server, as a registry sees them. A server of one has none.

Who holds an upload is nowhere written down, for what is written down may be old: the lock on its
spool file says that somebody does, and the others say who. They are asked only then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.moving import Moved
    from uringd.wire import UploadState


class HeldElsewhereError(Exception):
    """Another process holds the upload, and its lanes belong together: go there."""

    def __init__(self, worker: str) -> None:
        super().__init__(worker)
        self.worker = worker


@dataclass(frozen=True, slots=True)
class Description:
    """What the holder of an upload knows of it. Positions and size in bytes."""

    upload_id: str
    state: UploadState
    accepted: int
    written: int
    durable: int
    size: int | None


class Others(Protocol):
    """Asks all other processes. Whoever does not answer holds nothing, as far as is known."""

    patience_s: float
    """How long a lock is waited for that nobody answers for: its holder is creating the upload or
    closing it, or was killed, and its last writes are on their way."""

    async def find(self, upload_id: str) -> str | None:
        """Return the name of the process that holds an upload."""

    async def let_go(self, upload_id: str, epoch: int) -> int | None:
        """Have an upload taken from its sessions, made durable and closed.

        `epoch` as in RESUME. The result is its new epoch, None if nobody holds it (any more).
        Raises UploadError, as the holder says.
        """

    async def abort(self, upload_id: str, reason: str) -> bool:
        """Have an upload thrown away; whether somebody held it. Raises UploadError."""

    async def describe(self, upload_ids: Sequence[str]) -> dict[str, Description]:
        """Describe those of the uploads that somebody holds."""

    async def move(self, fd: int, worker: str, moved: Moved) -> bool:
        """Have a connection gone on with by another process; whether it does.

        The caller closes its descriptor in either case.
        """


class Nobody:
    """A server of one process: a lock that it does not hold is one that a killed one held."""

    patience_s = 0.0

    async def find(self, upload_id: str) -> str | None:  # noqa: ARG002
        """Return nobody."""
        return None

    async def let_go(self, upload_id: str, epoch: int) -> int | None:  # noqa: ARG002
        """Return that nobody held it."""
        return None

    async def abort(self, upload_id: str, reason: str) -> bool:  # noqa: ARG002
        """Return that nobody held it."""
        return False

    async def describe(self, upload_ids: Sequence[str]) -> dict[str, Description]:  # noqa: ARG002
        """Return nothing."""
        return {}

    async def move(self, fd: int, worker: str, moved: Moved) -> bool:  # noqa: ARG002
        """Return that nobody does."""
        return False
