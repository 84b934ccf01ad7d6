"""What a soak calls broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.report import MIB, Report
from tests.soak.watch import Sample

HOUR = [Sample(60.0 * i, 90 * MIB, 8 * MIB, 20, 5, i * MIB) for i in range(61)]
REST = Sample(0, 80 * MIB, 8 * MIB, 12, 2, 0)


def test_a_level_hour_breaks_nothing() -> None:
    report = Report(1, 6, samples=HOUR, before=REST, after=replace(REST, rss_bytes=99 * MIB))
    report.judge()
    assert report.broken == []
    assert "+0.00 MiB/h" in report.table()


def test_memory_that_grows_by_three_mib_an_hour_does() -> None:
    grown = [replace(s, rss_bytes=s.rss_bytes + i * MIB // 20) for i, s in enumerate(HOUR)]
    report = Report(1, 6, samples=grown, before=REST, after=REST)
    report.judge()
    [sentence] = report.broken
    assert "3.00 MiB/h" in sentence


def test_one_big_upload_is_no_growth() -> None:
    peak = [replace(s, rss_bytes=300 * MIB) if i in {50, 51} else s for i, s in enumerate(HOUR)]
    report = Report(1, 6, samples=peak, before=REST, after=REST)
    report.judge()
    assert report.broken == []


@pytest.mark.parametrize("what", ["descriptors", "pinned_bytes", "threads"])
def test_what_is_still_held_at_rest_does(what: str) -> None:
    after = replace(REST, **{what: getattr(REST, what) + 1})
    report = Report(1, 6, samples=HOUR, before=REST, after=after)
    report.judge()
    [sentence] = report.broken
    assert what.replace("_", " ") in sentence
