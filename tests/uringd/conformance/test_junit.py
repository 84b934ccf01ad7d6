from __future__ import annotations

import xml.etree.ElementTree as ET

from uringd.conformance.case import Case
from uringd.conformance.junit import junit
from uringd.conformance.runner import FAILED, PASSED, SKIPPED, Result


async def look(_: object) -> None:
    pass


def result(case_id: str, section: str, outcome: str, got: str = "") -> Result:
    return Result(Case(case_id, section, f"<{case_id}> & so on.", look), outcome, 0.25, "a", got)


RESULTS = [
    result("PI-001", "PING", PASSED),
    result("PI-002", "PING", FAILED, "b"),
    result("LI-001", "LIST", SKIPPED, "why"),
]


def test_each_section_is_a_suite_and_each_result_a_case() -> None:
    root = ET.fromstring(junit(RESULTS, "unix:///s"))
    assert root.tag == "testsuites"
    suites = [(s.get("name"), s.get("tests"), s.get("failures"), s.get("skipped")) for s in root]
    assert suites == [("PING", "2", "1", "0"), ("LIST", "1", "0", "1")]
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "1")
    passed, failed, skipped = root.iter("testcase")
    assert passed.get("name") == "PI-001 <PI-001> & so on." and len(passed) == 0
    failure, skip = failed.find("failure"), skipped.find("skipped")
    assert failure is not None and failure.get("message") == "expected a; got b"
    assert skip is not None and skip.get("message") == "why"


def test_what_xml_cannot_hold_is_replaced() -> None:
    text = "a\0b\x1b[31m\ud800\ufffe"
    [case] = ET.fromstring(junit([result("PI-001", "PING", FAILED, text)], "u")).iter("testcase")
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "expected a; got a\ufffdb\ufffd[31m\ufffd\ufffd"
