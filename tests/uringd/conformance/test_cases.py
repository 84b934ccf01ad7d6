"""The list of cases: numbered, about sections that exist, and covering what can go wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uringd.conformance.cases import CASES, SECTIONS
from uringd.conformance.leaving import SESSIONS
from uringd.conformance.target import FEATURES
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from uringd.conformance.case import Case

PROTOS = Path(__file__).resolve().parents[3] / "protos"
TEXT = (PROTOS / "PROTOCOL.md").read_text()
HEADINGS = {line.lstrip("# ") for line in TEXT.splitlines() if line.startswith("#")}
MALFORMED: list[dict[str, Any]] = json.loads((PROTOS / "vectors" / "malformed.json").read_text())
VALID: list[dict[str, Any]] = json.loads((PROTOS / "vectors" / "valid.json").read_text())

NUMBERS = {
    "TR": "1-11",
    "PH": "1-8",
    "FR": "1-8",
    "HD": "1-48",
    "RQ": "1-12",
    "CS": "1-6",
    "MS": "1-7 10-25 30-43",
    "HE": "1-12",
    "CR": "1-17",
    "NA": "1-24 30-31 40-48",
    "DA": "1-6",
    "AC": "1-6",
    "SY": "1-7",
    "CO": "1-20",
    "AB": "1-10",
    "ST": "1-6",
    "LI": "1-9",
    "PI": "1-2",
    "ER": "1-5",
    "PG": "1-4",
    "AT": "1-9",
    "PL": "1-13",
    "SM": "1",
    "CH": "1-26",
    "FC": "1-8",
    "SU": "1-11",
    "OR": "1-3",
    "RE": "1-28 41-52",
    "LA": "1-18",
    "PC": "1-18",
    "LM": "1-4",
    "EC": "1-2",
    "VE": "1-8",
    "SH": "1-6",
}
"""Ids are what reports are compared by: one that was given stays, and is not given again."""


def runs(numbers: list[int]) -> str:
    """Write numbers as runs of them: 1-3 5-6."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return " ".join(f"{part[0]}-{part[-1]}" if part[1:] else f"{part[0]}" for part in parts)


def test_there_are_many_and_no_id_twice() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 150


def test_the_ids_are_those_that_were_given() -> None:
    found = {
        section.prefix: runs([int(case.id.removeprefix(section.prefix + "-")) for case in cases])
        for section in SECTIONS
        if (cases := section.cases)
    }
    assert found == NUMBERS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_says_what_it_requires_and_where_that_is_written(case: Case) -> None:
    assert re.fullmatch(r"[A-Z]{2}-\d{3}", case.id)
    assert case.section in HEADINGS
    assert case.requirement.endswith(".") and case.requirement == case.requirement.strip()
    assert set(case.needs) <= set(FEATURES)


def test_no_requirement_is_there_twice() -> None:
    sentences = [(case.section, case.requirement) for case in CASES]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_each_error_code_has_a_case_and_a_vector(code: ErrorCode) -> None:
    assert any(code in case.codes for case in CASES)
    errors = [
        v["event"]["message"]
        for v in VALID
        if v.get("event", {}) != "closed" and v["event"]["type"] == "ERROR"
    ]
    assert f"ERROR_CODE_{code.name}" in {error["code"] for error in errors}


@pytest.mark.parametrize("vector", [v["name"] for v in MALFORMED if v["direction"] == "C"])
def test_each_malformed_frame_of_a_client_has_a_case_with_its_code(vector: str) -> None:
    [code] = [v["error"] for v in MALFORMED if v["name"] == vector]
    cases = [case for case in CASES if vector in case.vectors]
    assert cases
    assert all(ErrorCode[code] in case.codes for case in cases)


def test_cases_name_vectors_that_there_are() -> None:
    named = {vector for case in CASES for vector in case.vectors}
    assert named <= {vector["name"] for vector in MALFORMED}


def test_there_are_sessions_for_all_cases_of_shutdown() -> None:
    assert len([case for case in CASES if case.section == "SHUTDOWN"]) <= SESSIONS
