"""What a test needs and this machine lacks: a visible skip, or a failure where it must be there.

With URINGD_TEST_NOTHING_LACKS=1 the tests that need root, loop devices, FUSE, a file system or a
tool fail instead of being skipped: for machines that are known to have all of it.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

NOTHING_LACKS = "URINGD_TEST_NOTHING_LACKS"


def lacking(what: str) -> NoReturn:
    """Skip the test for want of something; fail it where nothing may be wanting."""
    if os.environ.get(NOTHING_LACKS) == "1":
        pytest.fail(f"{what} ({NOTHING_LACKS} is set)")
    pytest.skip(what)


def need_root(what_for: str) -> None:
    """Go on as root only."""
    if os.geteuid() != 0:
        lacking(f"{what_for} needs root")


def need_tool(name: str) -> None:
    """Go on where a command is installed."""
    if shutil.which(name) is None:
        lacking(f"{name} is not installed")
