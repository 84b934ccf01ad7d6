"""A session's hold on an upload: the right to fill it under a handle, until it is fenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uringd.records import ReceiptRecord
    from uringd.session import Session
    from uringd.uploads import Upload


class Hold:
    """One handle of one session. The upload tells it what becomes of the upload."""

    __slots__ = ("epoch", "handle", "session", "upload")

    def __init__(self, session: Session, handle: int, upload: Upload) -> None:
        self.session = session
        self.handle = handle
        self.upload = upload
        self.epoch = upload.epoch

    @property
    def is_fenced(self) -> bool:
        """Whether a newer epoch has taken the upload over."""
        return self.epoch != self.upload.epoch

    def progressed(self) -> None:
        """Take note that more of the upload is durable, or that it broke."""
        self.session.progressed(self.handle)

    def fenced(self) -> None:
        """Take note that a newer epoch has taken the upload over."""
        self.session.fenced(self.handle)

    def ended(self, receipt: ReceiptRecord | None, reason: str) -> None:
        """Take note that the upload was published, or thrown away, here or elsewhere."""
        self.session.ended(self.handle, receipt, reason)
