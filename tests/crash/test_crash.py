"""`make crash`, a dozen rounds of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("crash.py")
ROUNDS = 12
ENDS_S = 240
"""A run that takes longer hangs: the script itself gives up before."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dozen_kills_and_cuts_break_no_promise(tmp_path: Path, workers: int) -> None:
    options = ["--workers", str(workers)]
    options += ["--rounds", str(ROUNDS), "--smallest", "2", "--directory", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, "-I" if sys.flags.isolated else "-P", SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S,
    )
    if "is a tmpfs" in done.stderr:
        pytest.skip("tmp_path is in memory: this wants a disk")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["broken"] == ""
    assert said["rounds"] == ROUNDS
    assert said["uploads"]["published"] >= 1
    assert list(tmp_path.iterdir()) == []
