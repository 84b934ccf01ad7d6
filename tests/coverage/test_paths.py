"""What the coverage is measured of: it is there, and every exclusion says why."""

from __future__ import annotations

import pytest

from tests.coverage.excused import excuses
from tests.coverage.paths import C_SOURCES, MODULES, ROOT

REASON_CHARS_MIN = 15


@pytest.mark.parametrize("path", [*MODULES, *C_SOURCES])
def test_a_measured_file_is_there_and_excludes_nothing_in_another_way(path: str) -> None:
    assert "pragma: no" not in (ROOT / path).read_text()


def test_every_exclusion_says_why() -> None:
    for excuse in excuses():
        assert len(excuse.split(": ", 1)[1]) >= REASON_CHARS_MIN, excuse
