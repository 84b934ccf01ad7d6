"""codec.py at its smallest: it runs, says its method, and measures what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.conftest import Script

TINY = ("--rounds", "2", "--count", "200")
ROWS = ["encode", "decode", "send", "receive", "both", "checked"]


def test_every_row_is_measured_in_every_round(script: Script) -> None:
    done = script("codec.py", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["rows"]) == ROWS
    for row in result["rows"].values():
        for rate in (row["rate"], row["wall_rate"]):
            assert rate["count"] == 2
            assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert result["settings"] == {"rounds": 2, "count": 200, "frame_bytes": 1 << 20}
    assert result["environment"]["cpu"]
    assert any("touches no byte" in line for line in result["method"])


def test_the_table_says_the_method_first(script: Script) -> None:
    done = script("codec.py", *TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("touches no byte") < done.stdout.index("median of 2")
    assert "both with CRC32C" in done.stdout


def test_help_teaches(script: Script) -> None:
    assert "1 MiB frames" in script("codec.py", "--help").stdout
