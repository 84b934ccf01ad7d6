"""Whether a figure grows: its slope over time, and what may be said of a run of that length.

The slope is Theil and Sen's: the median of the slopes between all pairs of samples. What a few
samples say (an upload that was big just then) does not move it, as it would a least-squares line.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

SLOPE_MAX_BYTES_H = 1 << 20
"""What resident memory may grow by in an hour, once warm."""

NOISE_BYTES = 1 << 20
"""What a short run cannot tell from growth: the allocator keeps or gives back as much at any time.
In an hour and more it matters less than the slope."""

JUDGED_S_MIN = 600.0
"""A shorter run is still warming up: its slope is told, and not judged."""

SAMPLES_MAX = 1200
"""Samples that are compared, each with each: above it only some, evenly spaced."""

HOUR_S = 3600.0


def slope_per_s(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Tell by how much the values grow in a second; 0 for fewer than two samples."""
    step = -(-len(times_s) // SAMPLES_MAX)
    points = list(zip(times_s, values, strict=True))[:: max(1, step)]
    slopes = [
        (later - earlier) / (after - before)
        for i, (before, earlier) in enumerate(points)
        for after, later in points[i + 1 :]
        if after > before
    ]
    return statistics.median(slopes) if slopes else 0.0


def grows_too_much(bytes_per_s: float, seconds: float) -> bool:
    """Whether memory that grew so fast for so long breaks the promise."""
    if seconds < JUDGED_S_MIN:
        return False
    return bytes_per_s * seconds > SLOPE_MAX_BYTES_H * seconds / HOUR_S + NOISE_BYTES
