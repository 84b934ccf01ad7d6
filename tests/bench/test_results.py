"""results.py: what is written is what is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.harness.results import Result, ResultError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import MakeResult


def test_a_result_survives_its_file(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({"fio": [1.0, 2.0]}, facts={"latency_p99_us": 9.0})
    result.missing["os-write"] = "no reason"
    result.checked.append("fio")
    path = tmp_path / "results" / "one.json"
    result.save(path, {"fio": {}})
    assert Result.load(path) == result
    document = json.loads(path.read_text())
    assert {"schema", "environment", "method", "runs", "figures", "contenders"} <= set(document)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 99}'])
def test_another_file_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ResultError):
        Result.load(path)
