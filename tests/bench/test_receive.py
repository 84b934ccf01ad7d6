"""receive.py at its smallest: every way receives what was sent, and the table says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import uringio
from bench.harness.receiving.ways import WAYS, WRITING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Script

TINY = ("--quick", "--mib", "8")

needs_io_uring = pytest.mark.skipif(not uringio.probe().available, reason="no io_uring here")


@needs_io_uring
def test_every_way_is_measured_and_the_method_comes_first(script: Script, tmp_path: Path) -> None:
    into = tmp_path / "found.json"
    done = script("receive.py", *TINY, "--dir", tmp_path, "--json", into)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("CRC32C") < done.stdout.index("median of 1")
    assert "did not run" not in done.stdout
    found = json.loads(into.read_text())["found"]
    measured = {
        (entry["setting"]["transport"], entry["setting"]["writes"], entry["way"]) for entry in found
    }
    assert measured == {
        (transport, writes, way)
        for transport in ("tcp", "unix")
        for writes in (False, True)
        for way in ("bare", *WAYS)
        if writes or way not in WRITING
    }
    for entry in found:
        [run] = entry["runs"]
        assert run["seconds"] > 0 and run["sender_cpu_s"] >= 0
    assert list(tmp_path.iterdir()) == [into]


@needs_io_uring
def test_a_way_that_cannot_run_is_a_line_and_not_the_end(script: Script, tmp_path: Path) -> None:
    done = script("receive.py", *TINY, "--dir", tmp_path, "--way", "bare", "--way", "none")
    assert done.returncode == 0, done.stderr
    assert "none did not run" in done.stdout
    assert "bare" in done.stdout


def test_help_teaches(script: Script) -> None:
    assert "recv_into 1 MiB of memory" in script("receive.py", "--help").stdout
