"""results.py: what is written is what is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.harness.document import derived
from bench.harness.results import Result, ResultError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import MakeResult


def test_a_result_survives_its_file(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result({"fio": [1.0, 2.0]}, facts={"latency_us": {"99": 9.0}})
    result.missing["fresh"] = {"os-write": "no reason"}
    result.checked.append("fresh/1 MiB QD16/fio")
    result.interrupted = True
    path = tmp_path / "results" / "one.json"
    result.save(path, derived(result))
    assert Result.load(path) == result
    document = json.loads(path.read_text())
    assert {"schema", "environment", "method", "runs", "contenders"} <= set(document)
    assert document["figures"]["fresh"]["1 MiB QD16"]["fio"]["rate"]["high"] == 1024
    assert {verdict["met"] for verdict in document["acceptance"]} == {None}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 99}'])
def test_another_file_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ResultError):
        Result.load(path)
