"""What the handles of a session stand for: uploads that it holds, and what became of others."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from uringd.holds import Hold

if TYPE_CHECKING:
    from uringd.records import ReceiptRecord
    from uringd.session import Session
    from uringd.uploads import Upload

HANDLES_KEPT_MAX = 1024
"""Handles of published uploads that a session still answers COMMIT for, and of fenced ones that it
answers with FENCED: about 0.5 MiB."""


class Handles:
    """The handles of one session. Each is given out once, and none is 0."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next = 1
        self.holds: dict[int, Hold] = {}
        self.receipts: OrderedDict[int, ReceiptRecord] = OrderedDict()
        self.fenced: OrderedDict[int, None] = OrderedDict()

    @property
    def none_given(self) -> bool:
        """Whether there never was one."""
        return self._next == 1

    def take_hold(self, upload: Upload) -> Hold:
        """Give an upload a handle."""
        hold = Hold(self._session, self._give(), upload)
        self.holds[hold.handle] = hold
        return hold

    def of(self, upload: Upload) -> int:
        """Return the newest handle of an upload that is held."""
        return max(handle for handle, hold in self.holds.items() if hold.upload is upload)

    def keep_receipt(self, receipt: ReceiptRecord, handle: int = 0) -> int:
        """Let a handle stand for a receipt; the result is the handle, a new one for none."""
        handle = handle or self._give()
        self.receipts[handle] = receipt
        if len(self.receipts) > HANDLES_KEPT_MAX:
            self.receipts.popitem(last=False)
        return handle

    def fence(self, handle: int) -> None:
        """Let a handle stand for an upload that was lost to a newer epoch."""
        if self.holds.pop(handle, None) is not None:
            self.fenced[handle] = None
            if len(self.fenced) > HANDLES_KEPT_MAX:
                self.fenced.popitem(last=False)

    def _give(self) -> int:
        handle, self._next = self._next, self._next + 1
        return handle
