"""How long to wait before trying again, and for how long in all.

Exponential backoff with full jitter: many clients that lost the same server must not come back in
step. What counts as progress resets it: an acknowledgement, not a mere connection, or a server that
dies of every upload would be tried without end.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from uringd.errors import ClientError

FIRST_WAIT_S = 0.1
"""Upper bound of the first wait: a server that restarts takes about as long to listen again."""

WAIT_S_MAX = 5.0
"""Upper bound of any wait: after an outage of an hour nobody should wait minutes more."""

RETRY_S = 300.0
"""How long to go on without progress: a machine reboots in less."""

KEEP_ALIVE_S = 30.0
"""How long the server hears nothing while a source is waited for or compared, at the most."""


class Patience:
    """How long an upload goes on without progress. Shared by its lanes.

    The time begins with the first loss after the last progress: a source may be silent for long.
    """

    def __init__(self, retry_s: float) -> None:
        self.retry_s = retry_s
        self._lost_at: float | None = None

    def progress(self) -> None:
        """Forget the losses: something was acknowledged."""
        self._lost_at = None

    def lost(self) -> float:
        """Count a loss; the result is the seconds until there is no more point in trying."""
        if self._lost_at is None:
            self._lost_at = anyio.current_time()
        return self._lost_at + self.retry_s - anyio.current_time()


class Backoff:
    """The waits of one lane."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._bound_s = FIRST_WAIT_S

    def progress(self) -> None:
        """Begin with short waits again."""
        self._bound_s = FIRST_WAIT_S
        self._patience.progress()

    async def wait(self, reason: ClientError) -> None:
        """Wait before the next try. Raises `reason` when the time is over."""
        left_s = self._patience.lost()
        if left_s <= 0:
            raise reason
        wait_s = random.uniform(0, self._bound_s)  # noqa: S311  # no secret
        self._bound_s = min(2 * self._bound_s, WAIT_S_MAX)
        await anyio.sleep(min(wait_s, left_s))
