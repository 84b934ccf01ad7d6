"""Which kernel this is: for the few things that no probe shows."""

from __future__ import annotations

import os
import re

UNCACHED_SINCE = (6, 16)
"""Linux 6.14 has RWF_DONTCACHE and a fault that no probe shows: a page that was written again while
it was being dropped could be lost. 6.15 took the flag away, 6.16 has it mended."""


def kernel_version() -> tuple[int, int]:
    """Return the first two numbers of the kernel's release."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)
