"""Accepting connections, also while this process has no room for one more.

accept(2) without a free descriptor fails and leaves the connection in the kernel's queue, where it
goes on being ready: a loop that tries again at once burns a core and fills the log. Nothing is lost
by waiting, since clients stay in that queue, and each session that ends makes room for one.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING, NoReturn

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Serve = Callable[[trio.SocketStream], Awaitable[None]]

log = structlog.get_logger("uringd.accepting")

PAUSE_S = 0.1
"""Between two tries while there is no room: a session that ends is noticed soon, at no cost."""

TOLD_AGAIN_S = 60.0
"""A shortage is told when it begins, and so often while it lasts."""

MENDS = {
    errno.EMFILE: "ulimit -n with a higher number, or a lower connections_max",
    errno.ENFILE: "sysctl fs.file-max with a higher number",
    errno.ENOBUFS: "more memory for sockets (net.ipv4.tcp_mem), or a lower connections_max",
    errno.ENOMEM: "more memory, or a lower connections_max",
}
"""What accept(2) fails with for want of something, and how to get more of it."""


class Shortage:
    """Tells that there is no room for connections, now and then."""

    def __init__(self) -> None:
        self._told_at = -math.inf

    def met(self, exc: OSError) -> None:
        """Take note of an error that is in MENDS."""
        assert exc.errno in MENDS, "others are no shortage"
        now = trio.current_time()
        if now - self._told_at >= TOLD_AGAIN_S:
            self._told_at = now
            reason, mend = os.strerror(exc.errno), MENDS[exc.errno]
            log.warning("connections have to wait", reason=reason, mend=mend)


async def accept_forever(listener: trio.abc.Listener[trio.SocketStream], serve: Serve) -> NoReturn:
    """Serve each connection in a task of its own, until cancelled.

    `serve` closes its stream and raises nothing. Raises OSError if the listener itself fails.
    """
    shortage = Shortage()
    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in MENDS:
                    raise
                shortage.met(exc)
                await trio.sleep(PAUSE_S)
            else:
                nursery.start_soon(serve, stream)
