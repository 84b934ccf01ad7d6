"""connections.py at its smallest: it finds what it says it finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Script

TINY = ("--quick", "--mib", "8", "--idle", "20", "--rest", "0")


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_every_value_is_found_in_every_round(
    script: Script, tmp_path: Path, transport: str
) -> None:
    into = tmp_path / "found.json"
    done = script(
        "connections.py", *TINY, "--dir", tmp_path, "--json", into, "--transport", transport
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("RSS") < done.stdout.index("median of 1")
    values = json.loads(into.read_text())["values"]
    assert {"4 connections", "256 connections", "idle, KiB", "slow, p99 beside"} <= set(values)
    for name, found in values.items():
        assert len(found) == 1, name
    assert list(tmp_path.iterdir()) == [into]


def test_help_teaches(script: Script) -> None:
    assert "an upload of its own" in script("connections.py", "--help").stdout
