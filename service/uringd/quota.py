"""How much the spool may hold: the sum over all unfinished uploads, in bytes.

An upload counts for its declared size, or else for where its last chunk ends.
"""

from __future__ import annotations

import errno

from uringio.exceptions import operation_error

HINT = "the spool is full: finish or abort uploads, or raise --spool-max"


class SpoolQuota:
    """Counts what unfinished uploads hold; `bytes_max` None sets no limit but the disk's."""

    def __init__(self, bytes_max: int | None = None) -> None:
        self._bytes_max = bytes_max
        self._held: dict[str, int] = {}
        self.used = 0

    def restore(self, upload_id: str, size: int) -> None:
        """Count what an upload of an earlier life holds; not refused, for it is there."""
        self._grow(upload_id, size)

    def reserve(self, upload_id: str, end: int) -> None:
        """Count an upload up to `end`. Raises NoSpaceError (EDQUOT), and nothing has changed."""
        more = end - self._held.get(upload_id, 0)
        if more > 0 and self._bytes_max is not None and self.used + more > self._bytes_max:
            raise operation_error(errno.EDQUOT, "reserve", "the spool", hint=HINT)
        self._grow(upload_id, end)

    def release(self, upload_id: str) -> None:
        """Count an upload out: it ended."""
        self.used -= self._held.pop(upload_id, 0)

    def _grow(self, upload_id: str, end: int) -> None:
        before = self._held.get(upload_id, 0)
        if end > before:
            self.used += end - before
            self._held[upload_id] = end
