"""How much the spool may hold: the sum over all unfinished uploads of the server, in bytes.

An upload counts for its declared size, or else for where its last chunk ends. While it is open it
is known here what it counts for; at rest it counts for what its record says, which is the same.
What is reserved ahead of an upload of unknown size counts too, while it is open: a client's first
4 KiB would have 64 MiB of the disk otherwise, behind the quota's back.
"""

from __future__ import annotations

import errno

from uringd.accounts import Accounts, Kind
from uringio.exceptions import operation_error

HINT = "the spool is full: finish or abort uploads, or raise --spool-max"


class SpoolQuota:
    """Counts what unfinished uploads hold; `bytes_max` None sets no limit but the disk's."""

    def __init__(self, bytes_max: int | None = None, accounts: Accounts | None = None) -> None:
        self._bytes_max = bytes_max
        self._accounts = accounts or Accounts()
        self._held: dict[str, int] = {}
        self._recorded: dict[str, int] = {}

    @property
    def used(self) -> int:
        """What all unfinished uploads hold."""
        return self._accounts.total(Kind.SPOOL_BYTES)

    def found(self, size: int) -> None:
        """Count what an upload of an earlier life holds; not refused, for it is there."""
        self._accounts.found(Kind.SPOOL_BYTES, size)

    def reopen(self, upload_id: str, size: int) -> None:
        """Know what an upload counts for that is counted already."""
        self._held[upload_id] = self._recorded[upload_id] = size

    def reserve(self, upload_id: str, end: int, wish: int = 0) -> int:
        """Count an upload up to `wish` if there is room for that, else up to `end`.

        The result is how far it counts now, `end` at the least. Raises NoSpaceError (EDQUOT), and
        nothing has changed.
        """
        held = self._held.get(upload_id, 0)
        for wanted in (max(wish, end), end):
            more = wanted - held
            if more <= 0:
                return held
            if self._accounts.take(Kind.SPOOL_BYTES, more, self._bytes_max):
                self._held[upload_id] = wanted
                return wanted
        raise operation_error(errno.EDQUOT, "reserve", "the spool", hint=HINT)

    def recorded(self, upload_id: str, end: int) -> None:
        """Take note that the catalog says so now: this much stays when the process is killed."""
        more = end - self._recorded.get(upload_id, 0)
        if more > 0:
            self._accounts.keep(Kind.SPOOL_BYTES, more)
            self._recorded[upload_id] = end

    def rest(self, upload_id: str) -> None:
        """Leave an upload that is closed to its record."""
        recorded = self._recorded.pop(upload_id, 0)
        self._accounts.give_back(Kind.SPOOL_BYTES, self._held.pop(upload_id, 0) - recorded)

    def release(self, upload_id: str) -> None:
        """Count an open upload out: it ended."""
        recorded = self._recorded.get(upload_id, 0)
        self.rest(upload_id)
        self._accounts.drop(Kind.SPOOL_BYTES, recorded)

    def forget(self, size: int) -> None:
        """Count an upload out that was at rest."""
        self._accounts.drop(Kind.SPOOL_BYTES, size)
