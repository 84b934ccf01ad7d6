"""The oracle of the power cuts, held to a root from which something is taken away."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from tests.crash.ledger import BrokenPromiseError
from tests.crash.processes import started
from tests.guest.load import Load
from tests.guest.oracle import Oracle
from tests.guest.promises import Attempt
from uringd.client import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

READY_S = 60
SLOT_BYTES = 64 << 10
DURABLE_BYTES = 3 * SLOT_BYTES
CONTENT = memoryview(os.urandom(5 * SLOT_BYTES + 7))


@contextlib.asynccontextmanager
async def served(root: Path) -> AsyncIterator[tuple[str, trio.Process]]:
    url = f"unix://{root.with_suffix('.sock')}"
    arguments = ["serve", "--root", str(root), "--listen", url, "--slot-bytes", str(SLOT_BYTES)]
    async with started(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        with trio.fail_after(READY_S):
            assert await process.stdout.receive_some()
        yield url, process
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def serving(root: Path) -> AsyncIterator[str]:
    async with served(root) as (url, _process):
        yield url


async def upload(oracle: Oracle, url: str) -> None:
    """Publish a file by COMMIT and one by PUT, and leave an upload with three durable chunks."""
    published = oracle.add(Attempt("published", CONTENT, "published"))
    small = oracle.add(Attempt("small", CONTENT[:99], "published", committing=True))
    partial = oracle.add(Attempt("partial", CONTENT, "published"))

    def done(_result: object) -> None:
        small.acknowledged = True

    async with connect(url) as client:
        async with client.upload(published.name) as whole:
            published.upload_id = whole.id
            await whole.write(CONTENT)
            published.committing = True
            published.receipt = await whole.commit()
            published.acknowledged = True
        await client.put_many([(small.name, small.content)], done)
        async with client.upload(partial.name) as part:
            part.keep()
            partial.upload_id = part.id
            await part.write(CONTENT[:DURABLE_BYTES])
            partial.hear(await part.sync())
    assert partial.durable == DURABLE_BYTES


def spool_file(root: Path) -> Path:
    [found] = (root / ".uringd" / "spool").iterdir()
    return found


def change_a_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


async def test_a_root_that_lost_nothing_is_right_now_and_behind_the_next_life(
    tmp_path: Path,
) -> None:
    root, oracle = tmp_path / "root", Oracle()
    async with serving(root) as url:
        await upload(oracle, url)
    async with serving(root) as url:
        await oracle.check(root, url)
        assert [attempt.name for attempt in oracle.left] == list(oracle.attempts) == ["partial"]
        assert oracle.counts["receipts asked for again"] == 1
        assert oracle.counts["their durable bytes"] == DURABLE_BYTES
    async with serving(root) as url:
        await oracle.check(root, url)
        assert oracle.left == [] and not oracle.attempts
        assert oracle.counts["unfinished uploads with durable bytes"] == 2
        assert oracle.counts["uploads resumed and completed here"] == 1
        assert os.listdir(root) == [".uringd"]


TAKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a published file": (
        lambda root: change_a_byte(root / "published", 4097),
        r"published \(published\) is visible with 327,687 bytes",
    ),
    "the end of a published file": (
        lambda root: os.truncate(root / "published", SLOT_BYTES),
        r"is visible with 65,536 bytes",
    ),
    "a published file": (
        lambda root: os.unlink(root / "small"),
        "small was acknowledged as published, and is not there",
    ),
    "a durable byte": (
        lambda root: change_a_byte(spool_file(root), DURABLE_BYTES - 1),
        "on the disk they are others from byte 196,607 of 196,608 on",
    ),
    "the end of a durable prefix": (
        lambda root: os.truncate(spool_file(root), DURABLE_BYTES - 1),
        "partial",
    ),
    "an unfinished upload": (lambda root: os.unlink(spool_file(root)), "partial"),
    "the order of things: a file of nobody": (
        lambda root: (root / "of-nobody").touch(),
        "files that nobody sent are there",
    ),
    "the order of things: a file before its commit": (
        lambda root: (root / "partial").write_bytes(CONTENT),
        "partial is visible, and nobody has committed it",
    ),
    "every record": (
        lambda root: shutil.rmtree(root / ".uringd"),
        "published is published, and its COMMIT fails",
    ),
}


@pytest.mark.parametrize("taken", TAKEN)
async def test_what_is_taken_away_is_missed(tmp_path: Path, taken: str) -> None:
    root, oracle = tmp_path / "root", Oracle()
    async with serving(root) as url:
        await upload(oracle, url)
    take, sentence = TAKEN[taken]
    take(root)
    async with serving(root) as url:
        with pytest.raises(BrokenPromiseError, match=sentence):
            await oracle.check(root, url)


async def test_a_server_killed_under_the_guests_load_keeps_what_it_said(tmp_path: Path) -> None:
    root, oracle = tmp_path / "root", Oracle()
    load = Load(oracle, seed=1)
    for _ in range(2):
        async with served(root) as (url, process):
            await load.run(url, 0.2, process.kill)
        async with serving(root) as url:
            await oracle.check(root, url)
    assert oracle.counts["cuts that met one"] == 2
    assert oracle.counts["uploads resumed and completed here"] > 0
