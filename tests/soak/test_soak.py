"""`make soak`, a few seconds of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("soak.py")
SECONDS = 4
ENDS_S = 200
"""A run that takes longer hangs: the script itself gives up before."""


def test_a_few_seconds_of_everything_keep_every_promise(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = ["--seconds", str(SECONDS), "--directory", str(tmp_path), "--json", str(result)]
    done = subprocess.run(
        [sys.executable, "-I" if sys.flags.isolated else "-P", SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(result.read_text())
    assert said["broken"] == []
    assert said["published_bytes"] > 0
    assert said["samples"]
    assert list(tmp_path.iterdir()) == [result]
