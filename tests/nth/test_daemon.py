"""Whatever operation of an upload goes wrong, in whatever way: what clients hear is true."""

from __future__ import annotations

import pytest

from tests.nth.enumeration import injections, run, undisturbed
from tests.nth.errors import HARMLESS, TABLE

SAMPLE_EVERY = 4
"""One way in four: half a minute of one core, and all of them take a minute and a half."""


def test_every_operation_of_an_upload_has_its_errors_listed() -> None:
    assert set(undisturbed().counts) == set(TABLE)


def test_every_system_call_of_an_upload_is_listed() -> None:
    """Those in `CALLS` are counted, and are among the operations."""
    assert undisturbed().seen == set(HARMLESS)


@pytest.mark.parametrize("kind", TABLE)
def test_an_error_is_mended_or_told_and_leaves_nothing(kind: str) -> None:
    """A part of the loop; `make nth` does all of it."""
    for injection in injections(kind, SAMPLE_EVERY):
        run(injection)
