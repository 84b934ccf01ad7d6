"""Direct or buffered: what is offered is found out, and said honestly."""
# A test may block on a small file.

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from uringio._ring import libc
from uringio.exceptions import OperationError, TargetMissingError, UnavailableError
from uringio.lowlevel import OpenFile, open_file, operations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.uringio.conftest import OpenAny
    from uringio._trio.opening import Direct

CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL


def is_direct(file: OpenFile) -> bool:
    return bool(fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_DIRECT)


async def open_at(ring: object, path: Path, direct: Direct = "auto") -> OpenFile:
    flags = os.O_RDWR if path.exists() else CREATE
    opening = operations.open_at(-100, str(path), flags, 0o600)
    return await open_file(ring.reactor, opening, str(path), direct)  # type: ignore[attr-defined]


@pytest.mark.root
@pytest.mark.parametrize(
    ("file_system", "direct"),
    [(("ext4", 32), True), (("xfs", 320), True), (("btrfs", 128), False)],
    indirect=["file_system"],
    ids=["ext4", "xfs", "btrfs"],
)
async def test_direct_is_what_the_file_system_really_does(
    open_real: OpenAny, file_system: Path, *, direct: bool
) -> None:
    async with open_real() as ring:
        for _ in ("created", "existing"):
            file = await open_at(ring, file_system / "file")
            assert file.direct == is_direct(file) == direct
            assert file.block_bytes == (4096 if direct else 1)
            assert os.fstat(file.fd).st_size == 0, "trying left nothing in the file"
            os.close(file.fd)


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 32)], indirect=True, ids=["ext4"])
async def test_without_statx_the_file_itself_is_tried(
    open_real: OpenAny,
    file_system: Path,
    shared_memory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a kernel before Linux 6.1."""
    monkeypatch.setattr(libc, "statx_direct_alignment", lambda _: None)
    async with open_real() as ring:
        for path, direct in ((file_system / "file", True), (shared_memory / "file", False)):
            file = await open_at(ring, path)
            assert file.direct == is_direct(file) == direct
            assert os.fstat(file.fd).st_size == 0
            os.close(file.fd)
            path.write_bytes(bytes(10_000))
            file = await open_at(ring, path)
            assert file.direct == direct
            os.close(file.fd)


@pytest.mark.parametrize("direct", ["auto", "never"])
async def test_tmpfs_is_buffered_and_says_so(
    open_any: OpenAny, shared_memory: Path, direct: Direct
) -> None:
    async with open_any() as ring:
        file = await open_at(ring, shared_memory / "file", direct)
        assert not file.direct
        assert not is_direct(file)
        assert (file.block_bytes, file.memory_bytes) == (1, 1)
        os.close(file.fd)


async def test_direct_that_is_required_and_not_offered_is_refused(
    open_any: OpenAny, shared_memory: Path, count_descriptors: Callable[[], int]
) -> None:
    async with open_any() as ring:
        before = count_descriptors()
        with pytest.raises(UnavailableError, match='direct="auto" writes it buffered'):
            async with ring.create(shared_memory / "file", direct="require"):
                pytest.fail("it was created")
        assert os.listdir(shared_memory) == []
        (shared_memory / "file").write_bytes(b"")
        with pytest.raises(UnavailableError):
            await ring.open(shared_memory / "file", "r+", direct="require")
        assert count_descriptors() == before


async def test_never_is_buffered_everywhere(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any() as ring:
        file = await open_at(ring, tmp_path / "file", "never")
        assert not file.direct
        assert not is_direct(file)
        os.close(file.fd)


async def test_an_unknown_wish_is_refused_and_leaves_nothing(
    open_any: OpenAny, tmp_path: Path, count_descriptors: Callable[[], int]
) -> None:
    async with open_any() as ring:
        before = count_descriptors()
        with pytest.raises(ValueError, match='"auto", "require" or "never"'):
            async with ring.create(tmp_path / "file", direct="maybe"):  # type: ignore[arg-type]
                pytest.fail("it was created")
        assert count_descriptors() == before
    assert os.listdir(tmp_path) == []


async def test_a_file_that_cannot_be_opened_is_named(open_any: OpenAny, tmp_path: Path) -> None:
    async with open_any() as ring:
        with pytest.raises(TargetMissingError, match="none"):
            await ring.open(tmp_path / "none")
        with pytest.raises(OperationError) as caught:
            await ring.open(tmp_path, "r+")
        assert caught.value.errno == errno.EISDIR
