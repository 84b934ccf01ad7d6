"""Results as JUnit XML, the form that CI systems read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from uringd.conformance.runner import FAILED, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.conformance.runner import Result

_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Sequence[Result], url: str) -> bytes:
    """Return an XML document: a suite for each section, a case for each result."""
    root = ET.Element("testsuites", {"name": f"uringd conformance {url}"} | _counts(results))
    for section in dict.fromkeys(result.case.section for result in results):
        members = [result for result in results if result.case.section == section]
        suite = ET.SubElement(root, "testsuite", {"name": section} | _counts(members))
        for result in members:
            _add(suite, result)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add(suite: ET.Element, result: Result) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=result.case.section,
        name=f"{result.case.id} {result.case.requirement}",
        time=f"{result.seconds:.3f}",
    )
    if result.outcome == FAILED:
        text = _sayable(f"expected {result.expected}; got {result.got}")
        ET.SubElement(case, "failure", message=text).text = text
    elif result.outcome == SKIPPED:
        ET.SubElement(case, "skipped", message=_sayable(result.got))


def _counts(results: Sequence[Result]) -> dict[str, str]:
    outcomes = [result.outcome for result in results]
    return {
        "tests": str(len(results)),
        "failures": str(outcomes.count(FAILED)),
        "errors": "0",
        "skipped": str(outcomes.count(SKIPPED)),
        "time": f"{sum(result.seconds for result in results):.3f}",
    }


def _sayable(text: str) -> str:
    """Replace what XML 1.0 cannot hold (its section 2.2, Char): a server's text may be anything."""
    return _UNSAYABLE.sub("\N{REPLACEMENT CHARACTER}", text)
