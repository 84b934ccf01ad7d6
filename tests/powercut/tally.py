"""What a run of power cuts counted, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Tally:
    """Counts of one run, on one file system."""

    kind: str
    seed: int
    recordings: int = 0
    flushes: int = 0
    images: int = 0
    promised: int = 0  # names whose content had to be there, over all images
    receipts: int = 0
    resumable: int = 0
    compared_bytes: int = 0
    verified: int = 0  # images that `uringd verify` looked at as well
    recording_s: float = 0.0
    seconds: float = 0.0
    broken: int = 0  # images with a broken promise
    first_broken: str = ""

    def json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self) | {"images_a_second": round(self.rate, 1)}

    def table(self) -> str:
        """Everything, for people."""
        rows = [
            ("file system", self.kind),
            ("seed", str(self.seed)),
            ("recordings", f"{self.recordings:,} ({self.recording_s:.0f} s)"),
            ("flushes cut at", f"{self.flushes:,}"),
            ("crash images", f"{self.images:,} in {self.seconds:.0f} s ({self.rate:.1f} a second)"),
            ("files promised and found", f"{self.promised:,}"),
            ("receipts promised and found", f"{self.receipts:,}"),
            ("uploads to go on with", f"{self.resumable:,}"),
            ("bytes compared", f"{self.compared_bytes >> 20:,} MiB"),
            ("images verified as well", f"{self.verified:,}"),
            ("images with a broken promise", f"{self.broken:,}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    @property
    def rate(self) -> float:
        """Images a second, recordings included."""
        return self.images / self.seconds if self.seconds else 0.0
