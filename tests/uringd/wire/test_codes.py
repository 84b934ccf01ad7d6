import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import codes
from uringd.wire.codes import (
    ADVICE,
    Durability,
    ErrorCode,
    MemoryMode,
    UploadState,
    is_retryable,
    next_step,
)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (ErrorCode, pb.ErrorCode, "ERROR_CODE_"),
        (Durability, pb.Durability, "DURABILITY_"),
        (MemoryMode, pb.MemoryMode, "MEMORY_MODE_"),
        (UploadState, pb.UploadState, "UPLOAD_STATE_"),
    ],
)
def test_our_enums_are_those_of_the_proto_file(ours: object, theirs: object, prefix: str) -> None:
    wanted = {prefix + member.name: member.value for member in ours}  # type: ignore[attr-defined]
    # ErrorCode has no member for the value that is never sent.
    wanted.setdefault(prefix + "UNSPECIFIED", 0)
    assert dict(theirs.items()) == wanted  # type: ignore[attr-defined]


def test_every_error_code_says_what_the_client_does_next() -> None:
    assert list(ADVICE) == list(ErrorCode)
    for code in ErrorCode:
        assert next_step(code) == ADVICE[code].next_step != ""
        assert is_retryable(code) is ADVICE[code].retryable


def test_a_client_that_must_be_mended_is_never_told_to_retry() -> None:
    assert not [c for c in ErrorCode if "mend" in next_step(c) and is_retryable(c)]


def test_the_ranges_of_one_upload_fit_one_control_payload() -> None:
    ranges = [
        pb.Range(offset=codes.OFFSET_MAX - 1, length=codes.OFFSET_MAX, crc32c=2**32 - 1)
    ] * codes.RANGES_MAX
    assert pb.Error(missing=ranges).ByteSize() < codes.CONTROL_BYTES_MAX
