"""Hostile clients, and somebody well-behaved beside them who has to notice nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.uringd.cli.conftest import serve_process, start_uringd
from tests.uringd.cli.workers.conftest import serve_workers
from tests.uringd.conftest import SLOT_BYTES

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer
    from uringd.urls import Url

__all__ = ["serve_process", "serve_workers", "start_uringd"]

Content = Callable[[int], bytes]
Bystander = Callable[["Url", Path], Awaitable[None]]


@pytest.fixture
def bystander(open_peer: OpenPeer, content: Content) -> Bystander:
    """Upload a file of several chunks, and compare what is published with it."""
    uploaded = 0

    async def upload(url: Url, root: Path) -> None:
        nonlocal uploaded
        uploaded += 1
        data = content(3 * SLOT_BYTES + uploaded)
        async with open_peer(url, "resume") as peer:
            receipt = await peer.upload(f"good-{uploaded}", data)
        assert receipt.size == len(data)
        assert (root / f"good-{uploaded}").read_bytes() == data

    return upload


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside ROOT, with a secret: not a byte of it, nor a name in it, may change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    before = fingerprint(path)
    yield path
    assert fingerprint(path) == before, "something was written outside of ROOT"


def fingerprint(path: Path) -> str:
    """What a tree has: names, kinds, modes, links and bytes."""
    found = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        entry = each.lstat()
        found.update(f"{each.relative_to(path)} {entry.st_mode} {entry.st_nlink}\n".encode())
        if each.is_symlink():
            found.update(os.readlink(each).encode())
        elif each.is_file():
            found.update(each.read_bytes())
    return found.hexdigest()


def spool_bytes(daemon: Daemon) -> int:
    """What the spool's files have of the disk."""
    total = 0
    for name in daemon.spool:
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(name, dir_fd=daemon.server.root.spool_fd).st_blocks * 512
    return total
