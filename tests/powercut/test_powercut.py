"""`make powercut`, a small part of it; and that it finds what it is there to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks.cut_disks import KINDS
from tests.lacking import lacking

SCRIPT = Path(__file__).with_name("powercut.py")
FORGETFUL = Path(__file__).with_name("forgetful.py")
FLAG = "-I" if sys.flags.isolated else "-P"
ENDS_S = 240
"""A run that takes longer hangs."""

EVERY = 24
"""Flushes from one that is looked at to the next."""

pytestmark = pytest.mark.root


def cut(tmp_path: Path, kind: str, *options: object) -> subprocess.CompletedProcess[str]:
    arguments = ["--kind", kind, "--recordings", 1, "--directory", tmp_path, "--json", *options]
    done = subprocess.run(
        [sys.executable, FLAG, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S,
    )
    if done.returncode == 2:
        lacking(done.stderr.strip())
    assert list(tmp_path.iterdir()) == []
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_takes_what_was_acknowledged_or_leaves_a_torn_file(
    tmp_path: Path, kind: str
) -> None:
    done = cut(tmp_path, kind, "--seed", 1, "--every", EVERY, "--states", 3)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["recordings"], said["broken"]) == (1, 0)
    assert said["images"] >= said["flushes"] > 5
    assert min(said["promised"], said["receipts"], said["resumable"]) > 0


def test_a_server_that_forgets_its_fsyncs_is_found_out(tmp_path: Path) -> None:
    done = cut(tmp_path, "xfs", "--seed", 1, "--states", 2, "--server", FORGETFUL)
    assert done.returncode == 1
    assert json.loads(done.stdout)["broken"] == 1
    assert "broken: recording 1, flush" in done.stderr
