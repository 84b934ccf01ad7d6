"""What is taken for lost, for torn, and for right after a cut."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.crash.ledger import BrokenPromiseError
from tests.guest.promises import Attempt
from uringd.client import Receipt
from uringd.wire import crc32c

CONTENT = b"every byte of it"
WHOLE = (len(CONTENT), crc32c(CONTENT))
SHORT = (4, crc32c(CONTENT[:4]))
OTHER = (len(CONTENT), crc32c(b"Every byte of it"))

RECEIPT = Receipt(
    upload_id="0" * 32,
    name="name",
    size=len(CONTENT),
    crc32c=f"{crc32c(CONTENT):08x}",
    durability="published",
    backend="io_uring",
    direct=True,
    transport="tcp",
    seconds=0.5,
    sent_bytes=len(CONTENT),
    instance_id="1" * 32,
    resumed=0,
    lanes=1,
)


def attempt(level: str = "published", *, put: bool = False, **known: object) -> Attempt:
    upload_id = "" if put else RECEIPT.upload_id
    found = Attempt("name", memoryview(CONTENT), level, upload_id)
    for key, value in known.items():
        assert hasattr(found, key)
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    ("level", "put"), [("published", False), ("published", True), ("durable", False)]
)
def test_what_was_acknowledged_has_its_name(level: str, *, put: bool) -> None:
    made = attempt(level, put=put, committing=True, acknowledged=True)
    made.judge_name(*WHOLE)
    with pytest.raises(BrokenPromiseError, match=f"acknowledged as {level}, and is not there"):
        made.judge_name(None, 0)


def test_a_put_at_durable_may_lose_its_name_and_what_was_not_answered_has_none_to_lose() -> None:
    attempt("durable", put=True, committing=True, acknowledged=True).judge_name(None, 0)
    attempt("published", committing=True).judge_name(None, 0)


@pytest.mark.parametrize("level", ["published", "durable"])
@pytest.mark.parametrize("found", [SHORT, OTHER, (0, 0)])
@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_file_is_whole_or_not_visible(
    level: str, found: tuple[int, int], *, acknowledged: bool
) -> None:
    made = attempt(level, committing=True, acknowledged=acknowledged)
    with pytest.raises(BrokenPromiseError, match="is visible with"):
        made.judge_name(*found)


@pytest.mark.parametrize("level", ["published", "durable", "written"])
def test_no_file_is_visible_before_its_commit(level: str) -> None:
    with pytest.raises(BrokenPromiseError, match="nobody has committed it"):
        attempt(level).judge_name(*WHOLE)


def test_a_written_file_may_be_anything_or_nothing() -> None:
    made = attempt("written", committing=True, acknowledged=True, durable=9)
    made.judge_name(None, 0)
    made.judge_name(*OTHER)
    assert made.promised == 0


def test_a_durable_prefix_is_there_until_the_upload_is_given_up() -> None:
    made = attempt("written")
    made.hear(9)
    made.hear(5)
    made.judge_durable(9)
    with pytest.raises(BrokenPromiseError, match=r"9 bytes were .* and RESUME says 8"):
        made.judge_durable(8)
    made.aborting = True
    made.judge_durable(0)


@pytest.mark.parametrize(
    ("found", "at"), [(b"every bytE", 9), (b"every byt", 9), (b"", 0), (b"\0very byte of it", 0)]
)
def test_one_durable_byte_that_is_lost_on_the_disk_is_found(found: bytes, at: int) -> None:
    made = attempt(durable=10)
    made.judge_spooled(CONTENT[:10])
    made.judge_spooled(CONTENT[:10] + b"anything")
    with pytest.raises(BrokenPromiseError, match=f"others from byte {at} of {len(found)} on"):
        made.judge_spooled(found)


def test_the_receipt_is_the_same_after_the_cut_but_for_what_the_client_counts() -> None:
    made = attempt(receipt=RECEIPT)
    made.judge_receipt(replace(RECEIPT, sent_bytes=0, resumed=1, lanes=2))
    with pytest.raises(BrokenPromiseError, match="its Receipt was"):
        made.judge_receipt(replace(RECEIPT, durability="durable"))
    with pytest.raises(BrokenPromiseError, match="its Receipt was"):
        made.judge_receipt(replace(RECEIPT, instance_id="2" * 32))
