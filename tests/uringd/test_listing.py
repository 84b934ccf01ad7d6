"""Lists: what cannot be in the answer is not looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uringd.listing import list_files

DIRECTORIES, FILES = 10, 3

Reads = list[str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten directories of three files each, and a file that sorts between two of them."""
    for directory in range(DIRECTORIES):
        (tmp_path / f"d{directory}").mkdir()
        for file in range(FILES):
            (tmp_path / f"d{directory}/f{file}").touch()
    (tmp_path / "d3-").touch()
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Every directory that is read, and every file that is looked at."""
    seen: Reads = []
    scandir, look = os.scandir, os.stat

    def scan(fd: int) -> object:
        seen.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] + "/")
        return scandir(fd)

    def stat(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        seen.append(name)
        return look(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "stat", stat)
    return seen


@pytest.fixture
def names(tree: Path) -> Iterator[Callable[..., list[str]]]:
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)

    def read(prefix: str = "", after: str = "", count: int = 1000) -> list[str]:
        return [name for name, _ in list_files(fd, prefix, after, count)]

    yield read
    os.close(fd)


def test_a_prefix_is_all_that_is_read_and_a_file_that_is_not_wanted_is_not_looked_at(
    names: Callable[..., list[str]], reads: Reads, tree: Path
) -> None:
    assert names("d4/f1") == ["d4/f1"]
    assert reads == [f"{tree.name}/", "d4/", "f1"]


def test_what_lies_before_is_not_read_again(
    names: Callable[..., list[str]], reads: Reads, tree: Path
) -> None:
    assert names(after="d8/f0") == ["d8/f1", "d8/f2", *(f"d9/f{file}" for file in range(FILES))]
    assert reads[:2] == [f"{tree.name}/", "d8/"]
    assert len(reads) == 3 + 5


def test_a_tree_that_is_read_page_by_page_is_read_once_or_twice(
    names: Callable[..., list[str]], reads: Reads
) -> None:
    whole = names()
    assert len(whole) == DIRECTORIES * FILES + 1
    assert sorted(whole, key=str.encode) == whole
    reads.clear()
    paged: list[str] = []
    while page := names(after=paged[-1] if paged else "", count=2):
        paged += page
    assert paged == whole
    files = [read for read in reads if not read.endswith("/")]
    assert len(files) == len(whole)


@pytest.mark.parametrize(
    "after", ["d3", "d3-", "d3/", "d3/f1", "d3/f1/x", "d30", "e", "\U0010ffff"]
)
@pytest.mark.parametrize("prefix", ["", "d", "d3", "d3/", "d3/f", "d3/f1", "d3-", "x"])
def test_no_name_is_lost_between_prefix_and_after(
    names: Callable[..., list[str]], prefix: str, after: str
) -> None:
    expected = [
        name for name in names() if name.startswith(prefix) and name.encode() > after.encode()
    ]
    assert names(prefix, after) == expected
