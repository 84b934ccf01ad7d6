"""The one log event that an upload's end, or rest, is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from uringd.records import UploadRecord
    from uringd.uploads import Upload

log = structlog.get_logger("uringd.registry")


def log_end(upload: Upload, outcome: str, **facts: object) -> None:
    """Say what became of an open upload."""
    seconds = time.monotonic() - upload.started
    log.info(
        "upload",
        outcome=outcome,
        upload_id=upload.id,
        name=upload.name,
        accepted_bytes=upload.accepted,
        durable_bytes=upload.durable,
        seconds=round(seconds, 3),
        mib_s=round(upload.accepted / 2**20 / seconds, 1) if seconds > 0 else None,
        backend=upload.backend,
        direct=upload.direct,
        **facts,
    )


def log_removed(record: UploadRecord, reason: str) -> None:
    """Say that an upload is gone that was at rest."""
    log.info(
        "upload",
        outcome="removed",
        upload_id=record.upload_id,
        name=record.name,
        reason=reason,
    )
