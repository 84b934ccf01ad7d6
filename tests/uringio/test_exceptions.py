"""Errors: which class, what they say, and that they survive a pickle."""

from __future__ import annotations

import errno
import pickle

import pytest

from uringio import exceptions
from uringio.exceptions import OperationError, UringioError, operation_error


@pytest.mark.parametrize(
    ("number", "expected", "builtin"),
    [
        (errno.EEXIST, exceptions.TargetExistsError, FileExistsError),
        (errno.ENOENT, exceptions.TargetMissingError, FileNotFoundError),
        (errno.EACCES, exceptions.AccessError, PermissionError),
        (errno.EPERM, exceptions.AccessError, PermissionError),
        (errno.ENOSPC, exceptions.NoSpaceError, OSError),
        (errno.EDQUOT, exceptions.NoSpaceError, OSError),
        (errno.EFBIG, exceptions.NoSpaceError, OSError),
        (errno.EIO, OperationError, OSError),
    ],
)
def test_an_errno_becomes_the_class_that_fits(
    number: int, expected: type[OperationError], builtin: type[OSError]
) -> None:
    error = operation_error(number, "write", "/a/b", 4096, 512)
    assert type(error) is expected
    assert isinstance(error, builtin)
    assert isinstance(error, UringioError)
    assert error.errno == number
    assert error.filename == "/a/b"


def test_the_text_names_operation_path_offset_length_errno_and_mend() -> None:
    error = operation_error(errno.ENOSPC, "write", "/a/b", 4096, 512)
    assert str(error) == (
        "write of /a/b at offset 4096, 512 bytes: No space left on device (ENOSPC); "
        "free space on this file system, or write elsewhere"
    )
    assert str(operation_error(errno.EIO, "fsync", "x")) == "fsync of x: Input/output error (EIO)"
    assert str(operation_error(errno.EIO, "open", "x", hint="do this")).endswith("; do this")
    assert "(99999)" in str(operation_error(99_999, "write", "x"))


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ENOSPC])
def test_a_copy_says_the_same_and_is_another(number: int) -> None:
    error = operation_error(number, "write", "/a", 1, 2, "a hint")
    for copy in (error.again(), pickle.loads(pickle.dumps(error))):
        assert copy is not error
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert (copy.operation, copy.path, copy.offset, copy.length, copy.hint) == (
            "write",
            "/a",
            1,
            2,
            "a hint",
        )


def test_every_error_is_one_of_ours() -> None:
    classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
    assert len(classes) > 10
    assert all(issubclass(each, UringioError) for each in classes)
