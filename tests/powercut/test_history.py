"""The oracle: what it takes for lost, for torn, and for right."""

from __future__ import annotations

import pytest

from tests.powercut.history import Partial, Version, judge

OLD = Version(b"old", "published", begun=1, acknowledged=10)
NEW = Version(b"newer", "published", begun=20, acknowledged=30)


@pytest.mark.parametrize(
    ("moment", "found", "fault"),
    [
        (5, None, ""),
        (5, b"old", ""),
        (5, b"ol", "no version"),
        (10, None, "lost"),
        (10, b"", "no version"),
        (25, b"old", ""),
        (25, b"newer", ""),
        (30, b"newer", ""),
        (30, b"old", "an older version"),
        (30, None, "lost"),
        (30, b"older", "no version"),
    ],
)
def test_what_was_published_or_is_newer_is_right_and_nothing_else(
    moment: int, found: bytes | None, fault: str
) -> None:
    said = judge([OLD, NEW], found, moment)
    assert (fault in said) if fault else said == ""


@pytest.mark.parametrize(("keeps_name", "fault"), [(True, "lost"), (False, "")])
def test_a_durable_file_has_its_name_again_where_a_server_finds_it(
    fault: str, *, keeps_name: bool
) -> None:
    version = Version(b"bytes", "durable", 1, keeps_name, acknowledged=10)
    said = judge([version], None, 20)
    assert (fault in said) if fault else said == ""
    assert "no version" in judge([version], b"byte", 20)


def test_a_written_file_may_be_anything_or_nothing() -> None:
    version = Version(b"bytes", "written", 1, acknowledged=10)
    assert judge([version], None, 20) == judge([version], b"\0\0", 20) == ""


def test_a_durable_prefix_is_promised_until_the_upload_is_given_up() -> None:
    upload = Partial("name", bytes(100))
    upload.acknowledge(10, 0)
    upload.acknowledge(20, 40)
    upload.acknowledge(30, 60)
    assert [upload.promised(at) for at in (10, 20, 29, 30, 99)] == [0, 40, 40, 60, 60]
    upload.ends = 50
    assert [upload.may_be_over(at) for at in (49, 50)] == [False, True]
    assert upload.promised(99) == 60
    upload.gives_up = True
    assert [upload.promised(at) for at in (49, 50)] == [60, 0]
