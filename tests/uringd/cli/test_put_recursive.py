"""`uringd put --recursive`: a directory as its users have them, and what is said of it."""

from __future__ import annotations

import filecmp
import json
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, StartUringd, UringdCommand

SMALL_BYTES_MAX = 256 << 10
FILES = 2500


def fill(directory: Path, count: int) -> None:
    """Make small files of many sizes in nested directories, and a big one."""
    chance = random.Random(count)
    for number in range(count):
        parent = directory / f"d{number % 7}" / f"e{number % 11}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"file {number}").write_bytes(chance.randbytes(number * 13 % 5000))
    (directory / "big").write_bytes(chance.randbytes(SMALL_BYTES_MAX + 1))


def assert_same(left: Path, right: Path) -> None:
    """As diff -r: the same names with the same bytes."""
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
    _, mismatch, errors = filecmp.cmpfiles(left, right, names, shallow=False)
    assert (mismatch, errors) == ([], [])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    directory.mkdir()
    fill(directory, 120)
    return directory


def summary(stdout: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return facts


def test_a_directory_of_thousands_arrives_as_it_is(
    uringd: UringdCommand, serve_process: ServeProcess, tmp_path: Path
) -> None:
    directory = tmp_path / "many"
    fill(directory, FILES)
    server = serve_process()
    done = uringd("put", "-r", directory, server.tcp, "--lanes", 2, "--json")
    assert done.returncode == 0, done.stderr
    facts = summary(done.stdout)
    assert (facts["published"], facts["failed"], facts["skipped"]) == (FILES + 1, 0, 0)
    assert facts["published_bytes"] == sum(
        p.stat().st_size for p in directory.rglob("*") if p.is_file()
    )
    assert_same(directory, server.root / "many")
    assert server.spool == []


def test_run_again_it_leaves_alone_what_is_there(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    server = serve_process()
    assert uringd("put", "-r", tree, server.unix).returncode == 0
    inodes = {p: p.stat().st_ino for p in (server.root / "tree").rglob("*")}
    (tree / "new").write_bytes(b"new")
    again = uringd("put", "-r", tree, server.unix, "--json")
    assert again.returncode == 0, again.stderr
    facts = summary(again.stdout)
    assert (facts["published"], facts["unchanged"]) == (1, 121)
    assert {p: p.stat().st_ino for p in inodes} == inodes
    assert_same(tree, server.root / "tree")


def test_what_differs_is_refused_or_overwritten(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    server = serve_process()
    assert uringd("put", "-r", tree, server.unix).returncode == 0
    (tree / "d0" / "e0" / "file 0").write_bytes(b"changed")
    (tree / "big").write_bytes(b"b" * (SMALL_BYTES_MAX + 2))
    refused = uringd("put", "-r", tree, server.unix)
    assert refused.returncode == 3
    assert refused.stderr.count("EXISTS") == 2
    assert "tree/d0/e0/file 0" in refused.stderr
    assert "2 failed" in refused.stdout
    done = uringd("put", "-r", tree, server.unix, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert_same(tree, server.root / "tree")


def test_the_name_is_a_prefix(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    server = serve_process()
    assert uringd("put", "-r", tree, server.unix, "--name", "a/b").returncode == 0
    assert_same(tree, server.root / "a" / "b")


def test_a_directory_named_by_a_dot_has_its_own_name(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path, tmp_path: Path
) -> None:
    server = serve_process()
    assert uringd("put", "-r", f"{tree}/.", server.unix).returncode == 0
    assert_same(tree, server.root / "tree")


def test_links_and_special_files_are_skipped_and_said(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "link").symlink_to("big")
    os.mkfifo(tree / "pipe")
    server = serve_process()
    done = uringd("put", "-r", tree, server.unix, "--json")
    assert done.returncode == 0
    assert summary(done.stdout)["skipped"] == 3
    assert "link: it is a symbolic link" in done.stderr
    assert "pipe: it is a pipe" in done.stderr
    assert not (server.root / "tree" / "link").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_reported(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    (tree / "closed").mkdir(mode=0)
    (tree / "secret").touch(mode=0)
    server = serve_process()
    done = uringd("put", "-r", tree, server.unix)
    (tree / "closed").chmod(0o700)
    assert done.returncode == 5
    assert done.stderr.count("Permission denied") == 2
    assert "2 failed" in done.stdout


def test_a_name_that_cannot_be_said_is_reported_and_the_rest_goes(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    (tree / os.fsdecode(b"\xff")).write_bytes(b"x")
    (tree / "line\nbreak").write_bytes(b"x")
    server = serve_process()
    done = uringd("put", "-r", tree, server.unix)
    assert done.returncode == 3
    assert done.stderr.count("BAD_NAME") == 2
    assert len(list((server.root / "tree").rglob("file *"))) == 120


def test_an_empty_directory_is_nothing_to_do(
    uringd: UringdCommand, serve_process: ServeProcess, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = uringd("put", "-r", tmp_path / "empty", serve_process().unix)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 files published")


@pytest.mark.parametrize(
    "words", [["-"], ["tree", "--resume", "0" * 32], ["tree", "--name", ""]], ids=" ".join
)
def test_what_cannot_be_meant_is_a_usage_error(
    uringd: UringdCommand, tree: Path, words: list[str]
) -> None:
    done = uringd("put", "-r", words[0], "unix:///nowhere", *words[1:])
    assert done.returncode == 2


def test_what_is_no_directory_is_a_local_error(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    server = serve_process()
    for name in ("big", "nothing"):
        done = uringd("put", "-r", tree / name, server.unix)
        assert done.returncode == 5
        assert len(done.stderr.splitlines()) == 1


def test_a_directory_without_recursive_says_so(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path
) -> None:
    done = uringd("put", tree, serve_process().unix)
    assert done.returncode == 5
    assert "--recursive" in done.stderr


def test_ctrl_c_says_what_was_done_and_that_it_can_be_run_again(
    uringd: UringdCommand,
    start_uringd: StartUringd,
    serve_process: ServeProcess,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "many"
    fill(directory, 3000)
    server = serve_process()
    put = start_uringd("put", "-r", directory, server.tcp)
    while not (server.root / "many").exists() and put.poll() is None:
        os.sched_yield()
    put.send_signal(signal.SIGINT)
    _, said = put.communicate(timeout=60)
    if put.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert put.returncode == 130
    assert "files published" in said and "run it again" in said
    assert len(said.splitlines()) == 1
    again = uringd("put", "-r", directory, server.tcp)
    assert again.returncode == 0, again.stderr
    assert_same(directory, server.root / "many")


def test_a_server_that_is_killed_and_comes_back_costs_nothing(
    start_uringd: StartUringd, serve_process: ServeProcess, tmp_path: Path
) -> None:
    directory = tmp_path / "many"
    fill(directory, 3000)
    server = serve_process()
    root = server.root
    put = start_uringd("put", "-r", directory, server.unix, "--json")
    while not (root / "many").exists() and put.poll() is None:
        os.sched_yield()
    server.process.kill()
    server.process.wait()
    serve_process()
    said, complained = put.communicate(timeout=60)
    assert put.returncode == 0, complained
    facts = summary(said)
    assert facts["published"] + facts["unchanged"] == 3001
    assert_same(directory, root / "many")
    assert os.listdir(root / ".uringd" / "spool") == []


def test_all_of_it_is_verified_against_its_receipts(
    uringd: UringdCommand, serve_process: ServeProcess, tree: Path, tmp_path: Path
) -> None:
    """They are recorded after the answers, and before the server ends."""
    server = serve_process(root=tmp_path / "kept")
    assert uringd("put", "-r", tree, server.unix).returncode == 0
    (tree / "d0" / "e0" / "file 0").write_bytes(b"replaced")
    assert uringd("put", "-r", tree, server.unix, "--overwrite").returncode == 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    done = uringd("verify", server.root, "--all", "--json")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count('"outcome": "ok"') == 121
