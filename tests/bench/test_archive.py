"""archive.py and files.py: real files into one archive, and whole files compared."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from bench.harness.archive import select_files, start_tar
from bench.harness.files import file_sha256, repeat_until, same_bytes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trees(tmp_path: Path) -> tuple[str, str]:
    for name, size in (("one/a", 100), ("one/deep/b", 50), ("two/c", 200)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "one/link").symlink_to("a")
    return str(tmp_path / "one"), str(tmp_path / "two")


def test_the_second_tree_is_taken_only_where_the_first_is_small(trees: tuple[str, str]) -> None:
    assert select_files(trees, at_least=120, at_most=1000).trees == trees[:1]
    both = select_files(trees, at_least=160, at_most=1000)
    assert both.trees == trees
    assert both.size_bytes == 350


def test_no_file_is_added_once_there_is_enough(trees: tuple[str, str]) -> None:
    some = select_files(trees, at_least=1, at_most=60)
    assert some.size_bytes == 100
    assert len(some.paths) == 1


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_tar_takes_what_was_selected(trees: tuple[str, str], tmp_path: Path) -> None:
    selection = select_files(trees, at_least=1000, at_most=1000)
    tar = start_tar(selection, tmp_path / "listing")
    said, _ = tar.communicate()
    assert tar.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(said)) as archive:
        assert sorted(archive.getnames()) == sorted(selection.paths)


def test_files_are_compared_to_the_last_byte(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * (1 << 20) + b"a")
    other.write_bytes(b"x" * (1 << 20) + b"a")
    assert same_bytes(one, other)
    assert file_sha256(one) == file_sha256(other)
    other.write_bytes(b"x" * (1 << 20) + b"b")
    assert not same_bytes(one, other)
    other.write_bytes(b"x" * (1 << 20))
    assert not same_bytes(one, other)


def test_a_file_is_repeated_whole_until_it_is_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    repeat_until(path, 7)
    assert path.read_bytes() == b"abcabcabc"
    repeat_until(path, 9)
    assert path.stat().st_size == 9


def test_an_empty_file_gets_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match="empty"):
        repeat_until(path, 7)


def test_subprocesses_of_tar_end_when_nobody_reads(trees: tuple[str, str], tmp_path: Path) -> None:
    """The demo ends tar by closing its pipe: it must not wait for a reader for ever."""
    tar = start_tar(select_files(trees, at_least=1000, at_most=1000), tmp_path / "listing")
    assert tar.stdout is not None
    tar.stdout.close()
    assert isinstance(tar, subprocess.Popen)
    tar.wait()
