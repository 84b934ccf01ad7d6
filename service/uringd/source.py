"""What `put` reads from: a file, or a stream that comes when it comes.

A regular file is read where we stand, by offset, again where need be: its bytes are in memory or a
read-ahead away. A pipe, socket or terminal is waited for as trio waits for anything, so that a slow
one can be cancelled, and the server hears from us meanwhile.

The files of /proc are regular, have a size of 0, and data all the same (proc(5)). So a size of 0
says nothing: such a file is read until it ends, like a stream.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio

from uringd.client.backoff import KEEP_ALIVE_S
from uringd.errors import SourceError

if TYPE_CHECKING:
    from types import TracebackType

    from uringd.client.supply import Care

SILENT_S = 0.2
"""How long a stream is waited for alone: to look after connections costs more than a read."""

PIPE_BYTES = 1 << 20
"""Asked of the kernel for a pipe, so that one read gets a chunk (pipe-max-size, pipe(7))."""


CHANGED = (
    "the file had {} bytes when the upload began and has another size now: "
    "upload a file that is not being written"
)


class Source:
    """The bytes to be sent, open. `length` is None when only their end shows it.

    Where it is known they can be read again, and in any order.
    """

    def __init__(self, file: str) -> None:
        if file == "-" and sys.stdin is None:  # descriptor 0 is something else of ours by now
            raise SourceError("cannot read standard input: it is closed")
        try:
            self._fd = os.dup(0) if file == "-" else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            found = os.fstat(self._fd)
        except OSError as exc:
            name = "standard input" if file == "-" else file
            raise SourceError(f"cannot read {name}: {exc.strerror}") from exc
        if stat.S_ISDIR(found.st_mode):
            os.close(self._fd)
            raise SourceError(
                f"{file} is a directory: say --recursive, or tar c DIR | uringd put -"
            )
        regular = stat.S_ISREG(found.st_mode)
        known = regular and found.st_size > 0
        self._begin = self._position() if known else 0
        self.length = self._length_of(found) if known else None
        self._spoke_at = -1.0
        self._streams = not regular and not stat.S_ISBLK(found.st_mode)
        if stat.S_ISFIFO(found.st_mode) and hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # above the user's limit: it works without
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def size(self) -> int:
        """The length of what can be read again."""
        assert self.length is not None
        return self.length

    def read_at(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on. Raises SourceError."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], self._begin + offset + done)
            except OSError as exc:
                raise SourceError(f"cannot read the data to send: {exc.strerror}") from exc
            if not count:
                raise SourceError(CHANGED.format(self.length))
            done += count

    def place_of(self, offset: int) -> tuple[int, int]:
        """Say where the bytes from `offset` on lie."""
        return self._fd, self._begin + offset

    def check_size(self) -> None:
        """Raise SourceError if there is more now than there was, or less."""
        if self._length_of(os.fstat(self._fd)) != self.length:
            raise SourceError(CHANGED.format(self.length))

    async def fill(self, view: memoryview, care: Care) -> int:
        """Read until `view` is full or the source ends; the result is the length.

        The server hears from us every 30 s that a stream takes, silent or slow. Raises SourceError,
        and what became of the upload.
        """
        done = 0
        if self._spoke_at < 0:
            self._spoke_at = anyio.current_time()
        try:
            while done < len(view):
                if self._streams:
                    await self._wait_readable(care)
                count = os.readv(self._fd, [view[done:]])
                if not count:
                    break
                done += count
        except OSError as exc:
            raise SourceError(f"cannot read the data to send: {exc.strerror}") from exc
        return done

    async def _wait_readable(self, care: Care) -> None:
        if anyio.current_time() - self._spoke_at >= KEEP_ALIVE_S:
            await care.keep_alive()
            self._spoke_at = anyio.current_time()
        try:
            with anyio.move_on_after(SILENT_S):
                await anyio.wait_readable(self._fd)
                return
        except PermissionError:  # a device that never makes anybody wait (epoll(7))
            self._streams = False
            return
        await care.attend(partial(anyio.wait_readable, self._fd))

    def _length_of(self, found: os.stat_result) -> int:
        return max(0, found.st_size - self._begin)

    def _position(self) -> int:
        try:
            return os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError:
            return 0
