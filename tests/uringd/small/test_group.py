"""What a group of small uploads promises, and what each error costs whom."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from uringd.small.group import BARRIER_FILES_MIN
from uringd.wire import Durability, ErrorCode

if TYPE_CHECKING:
    from tests.uringd.small.conftest import Spool
    from uringd.small.put import Put

MANY = BARRIER_FILES_MIN + 2


def several(spool: Spool, count: int = MANY, **options: object) -> list[Put]:
    return [spool.put(f"f{n}", bytes([n]) * (n + 1), **options) for n in range(count)]  # type: ignore[arg-type]


def test_a_group_is_written_then_synced_then_named_then_its_directory_synced(spool: Spool) -> None:
    lost, calls = spool.publish(several(spool))
    assert calls == ["write", "barrier", "rename", "directory", "close"]
    assert not lost
    assert spool.published == {f"f{n}": bytes([n]) * (n + 1) for n in range(MANY)}


def test_a_few_files_are_synced_each(spool: Spool) -> None:
    _, calls = spool.publish(several(spool, BARRIER_FILES_MIN - 1))
    assert calls == ["write, fsync", "rename", "directory", "close"]


def test_without_a_barrier_each_file_is_synced(spool: Spool) -> None:
    _, calls = spool.publish(several(spool), trusts_barrier=False)
    assert calls == ["write, fsync", "rename", "directory", "close"]


def test_each_directory_is_synced_once(spool: Spool) -> None:
    puts = [*several(spool), spool.put("other/a"), spool.put("other/b")]
    _, calls = spool.publish(puts)
    assert calls.count("directory") == 2


@pytest.mark.parametrize(
    ("level", "steps"),
    [
        (Durability.WRITTEN, ["write", "rename", "close"]),
        (Durability.DURABLE, ["write", "barrier", "rename", "close"]),
    ],
)
def test_less_durability_takes_fewer_steps(
    spool: Spool, level: Durability, steps: list[str]
) -> None:
    puts = several(spool, durability=level)
    _, calls = spool.publish(puts)
    assert calls == steps
    assert {put.durability for put in puts} == {level}


def test_all_get_the_highest_level_that_one_asks_for(spool: Spool) -> None:
    puts = [*several(spool, durability=Durability.WRITTEN), spool.put("x")]
    _, calls = spool.publish(puts)
    assert "barrier" in calls and "directory" in calls
    assert {put.durability for put in puts} == {Durability.PUBLISHED}


@pytest.mark.parametrize(
    ("step", "number", "code"),
    [
        ("open", errno.EMFILE, ErrorCode.IO),
        ("open", errno.EEXIST, ErrorCode.EXISTS),
        ("write", errno.ENOSPC, ErrorCode.NO_SPACE),
        ("write", errno.EDQUOT, ErrorCode.NO_SPACE),
        ("write", errno.EIO, ErrorCode.IO),
        ("rename", errno.EEXIST, ErrorCode.EXISTS),
        ("rename", errno.EISDIR, ErrorCode.EXISTS),
        ("rename", errno.ENOSPC, ErrorCode.NO_SPACE),
        ("rename", errno.EIO, ErrorCode.IO),
    ],
)
@pytest.mark.parametrize("nth", [0, 1, MANY - 1])
def test_a_files_own_error_costs_that_file_only(
    spool: Spool, step: str, number: int, code: ErrorCode, nth: int
) -> None:
    puts = several(spool)
    lost, _ = spool.publish(puts, step, nth, number)
    assert not lost
    failed = [put for put in puts if put.failure is not None]
    assert failed == [puts[nth]]
    assert failed[0].failure is not None and failed[0].failure.code is code
    assert set(spool.published) == {put.name for put in puts if put is not puts[nth]}


@pytest.mark.parametrize("nth", [0, 2])
def test_a_files_own_failed_fsync_costs_that_file_only(spool: Spool, nth: int) -> None:
    puts = several(spool)
    lost, _ = spool.publish(puts, "fsync", nth, errno.EIO, trusts_barrier=False)
    assert not lost
    assert [put for put in puts if put.failure] == [puts[nth]]
    assert puts[nth].name not in spool.published


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, ErrorCode.IO), (errno.ENOSPC, ErrorCode.NO_SPACE)]
)
def test_a_failed_barrier_costs_the_whole_group_and_names_nothing(
    spool: Spool, number: int, code: ErrorCode
) -> None:
    puts = several(spool)
    lost, calls = spool.publish(puts, "barrier", 0, number)
    assert lost
    assert spool.published == {}
    assert {put.failure and put.failure.code for put in puts} == {code}
    assert calls.count("barrier") == 1, "it is never asked again"


def test_a_failed_barrier_leaves_a_files_own_error_as_it_was(spool: Spool) -> None:
    puts = [*several(spool), spool.put("x" * 256)]
    spool.publish(puts, "barrier", 0, errno.EIO)
    assert all(put.failure is not None for put in puts)


def test_a_directory_that_cannot_be_synced_costs_its_files_only(spool: Spool) -> None:
    puts = [*several(spool), spool.put("other/a"), spool.put("other/b")]
    lost, _ = spool.publish(puts, "directory", 1, errno.EIO)
    assert not lost
    failed = [put.name for put in puts if put.failure is not None]
    assert failed == ["other/a", "other/b"]
    assert {put.failure.code for put in puts if put.failure} == {ErrorCode.IO}


def test_a_name_that_is_too_long_for_the_disk_costs_that_file(spool: Spool) -> None:
    puts = [*several(spool), spool.put("x" * 256)]
    spool.publish(puts)
    assert puts[-1].failure is not None and puts[-1].failure.code is ErrorCode.BAD_NAME
    assert len(spool.published) == MANY


def test_of_two_that_may_not_replace_the_first_has_the_name(spool: Spool) -> None:
    puts = [*several(spool), spool.put("f0", b"second")]
    spool.publish(puts)
    assert [put.name for put in puts if put.failure] == ["f0"]
    assert puts[-1].failure is not None and puts[-1].failure.code is ErrorCode.EXISTS
    assert spool.published["f0"] == b"\0"


def test_of_two_that_replace_the_second_stays(spool: Spool) -> None:
    puts = [spool.put("name", b"one", overwrite=True), spool.put("name", b"two", overwrite=True)]
    spool.publish(puts)
    assert spool.published == {"name": b"two"}


def test_what_is_there_and_equal_is_success_and_stays(spool: Spool) -> None:
    path = spool.path / "f0"
    path.write_bytes(b"same")
    before = path.stat()
    puts = [spool.put("f0", b"same", keep_equal=True, overwrite=True), spool.put("f1")]
    spool.publish(puts)
    assert [put.unchanged for put in puts] == [True, False]
    assert [put.failure for put in puts] == [None, None]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_nothing_is_written_when_all_is_there(spool: Spool) -> None:
    (spool.path / "f0").write_bytes(b"same")
    puts = [spool.put("f0", b"same", keep_equal=True)]
    _, calls = spool.publish(puts)
    assert calls == ["write, fsync", "rename", "directory", "close"], "the name is made durable"
    assert puts[0].unchanged and puts[0].failure is None


@pytest.mark.parametrize("there", [b"diff", b"samE", b"same and more", b""])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_and_differs_is_replaced_or_refused(
    spool: Spool, there: bytes, *, overwrite: bool
) -> None:
    (spool.path / "f0").write_bytes(there)
    put = spool.put("f0", b"same", keep_equal=True, overwrite=overwrite)
    spool.publish([put])
    assert not put.unchanged
    assert spool.published["f0"] == (b"same" if overwrite else there)
    assert (put.failure is None) == overwrite
    assert put.failure is None or put.failure.code is ErrorCode.EXISTS


def test_a_link_to_an_equal_file_is_not_that_file(spool: Spool) -> None:
    (spool.path / "real").write_bytes(b"same")
    (spool.path / "f0").symlink_to("real")
    put = spool.put("f0", b"same", keep_equal=True)
    spool.publish([put])
    assert put.failure is not None and put.failure.code is ErrorCode.EXISTS


def test_an_equal_one_of_the_same_group_is_success(spool: Spool) -> None:
    """As when a client sends again what it has lost the answer for."""
    puts = [*several(spool), spool.put("f1", b"\1\1", keep_equal=True)]
    spool.publish(puts)
    assert [put.failure for put in puts] == [None] * len(puts)
    assert puts[-1].unchanged


def test_equal_to_what_an_earlier_one_replaces_is_not_there(spool: Spool) -> None:
    """They end as if one came after the other: by then what the second brings is not there."""
    (spool.path / "name").write_bytes(b"two")
    puts = [
        spool.put("name", b"one", overwrite=True),
        spool.put("name", b"two", overwrite=True, keep_equal=True),
    ]
    spool.publish(puts)
    assert spool.published == {"name": b"two"}
    assert not puts[1].unchanged


@pytest.mark.parametrize("number", [0, errno.EIO])
def test_what_is_there_passes_the_barrier_too(spool: Spool, number: int) -> None:
    """Whoever wrote it may not have made it durable, and the receipt will say so."""
    for put in several(spool):
        (spool.path / put.name).write_bytes(put.content)
    puts = several(spool, keep_equal=True)
    lost, calls = spool.publish(puts, "barrier" if number else "", 0, number)
    assert calls.count("barrier") == 1
    assert lost == bool(number)
    assert {put.failure is None for put in puts} == {not number}


@pytest.mark.parametrize("number", [0, errno.EIO])
def test_what_is_there_is_made_durable_itself_where_there_is_no_barrier(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One whose fsync fails is written again: the bytes that are there may be lost."""
    (spool.path / "f0").write_bytes(b"same")
    inode = (spool.path / "f0").stat().st_ino
    synced: list[int] = []
    fsync = os.fsync

    def fails(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        if number and synced[-1] == inode:
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fails)
    put = spool.put("f0", b"same", keep_equal=True, overwrite=True)
    spool.publish([put], trusts_barrier=False)
    assert synced[0] == inode
    assert put.unchanged == (not number)
    assert put.failure is None
    assert ((spool.path / "f0").stat().st_ino == inode) == (not number)


def test_a_failed_fsync_of_what_is_there_is_not_asked_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one would succeed, over bytes that the first one has lost."""
    (spool.path / "f0").write_bytes(b"same")
    inode = (spool.path / "f0").stat().st_ino
    synced: list[int] = []
    fsync = os.fsync

    def fails_once(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        if synced == [inode]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fails_once)
    put = spool.put("f0", b"same", keep_equal=True)
    lost, _ = spool.publish([put], trusts_barrier=False)
    assert synced.count(inode) == 1
    assert put.failure is not None and put.failure.code is ErrorCode.IO
    assert lost, "whoever was told that it is written has to hear of it"
