"""What others make of the server's own directory, and of ROOT's name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lacking import need_root
from uringd.root import Root, RootError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import FrameType

if TYPE_CHECKING:
    from tests.uringd.cli.workers.conftest import Workers
    from tests.uringd.conftest import Daemon, OpenPeer

MIB = 1 << 20
ID = "0123456789abcdef" * 2
NOBODY = 65534

ServeWorkers = Callable[..., "Workers"]
Content = Callable[[int], bytes]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_private_directory_that_others_may_write_to_is_refused(
    tmp_path: Path, outside: Path, mode: int
) -> None:
    """Else the catalog would be made wherever a link in it points to, by the server's user."""
    private = tmp_path / "root/.uringd"
    private.mkdir(parents=True)
    private.chmod(mode)
    for name in ("catalog.sqlite3", "lock", "spool"):
        (private / name).symlink_to(outside / f"{name} of the server")
    with pytest.raises(RootError) as caught:
        Root(tmp_path / "root")
    assert "chmod 700" in str(caught.value)


@pytest.mark.root
def test_a_private_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    need_root("a directory of another user")
    private = tmp_path / "root/.uringd"
    private.mkdir(parents=True, mode=0o700)
    os.chown(private, NOBODY, NOBODY)
    with pytest.raises(RootError) as caught:
        Root(tmp_path / "root")
    assert f"user {NOBODY}" in str(caught.value)


@pytest.mark.parametrize("name", ["lock", "spool", "."])
def test_a_link_in_place_of_what_is_the_servers_own_is_refused(
    tmp_path: Path, outside: Path, name: str
) -> None:
    private = tmp_path / "root/.uringd"
    private.parent.mkdir()
    if name == ".":
        private.symlink_to(outside)
    else:
        private.mkdir(mode=0o700)
        (private / name).symlink_to(outside / "made")
    with pytest.raises(RootError):
        Root(tmp_path / "root")


def test_a_refused_root_leaves_no_descriptor(
    tmp_path: Path, count_descriptors: Callable[[], int]
) -> None:
    (tmp_path / "root/.uringd").mkdir(parents=True)
    (tmp_path / "root/.uringd").chmod(0o777)
    before = count_descriptors()
    with pytest.raises(RootError):
        Root(tmp_path / "root")
    assert count_descriptors() == before


async def test_a_spool_that_is_replaced_is_served_on_as_it_was_opened(
    daemon: Daemon, open_peer: OpenPeer, outside: Path, content: Content
) -> None:
    private = daemon.root / ".uringd"
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        handle = await peer.create("before")
        (private / "spool").rename(private / "taken")
        (private / "spool").symlink_to(outside)
        await peer.fill(handle, content(MIB))
        await peer.commit(handle, MIB)
        await peer.upload("after", content(MIB))
        await peer.ask(FrameType.PUT, pb.Put(name="small", content=b"small"))
        (private / "spool").unlink()
        (private / "taken").rename(private / "spool")
    for name in ("before", "after"):
        assert (daemon.root / name).read_bytes() == content(MIB)


async def test_a_root_that_is_renamed_is_served_on_under_its_new_name(
    daemon: Daemon, open_peer: OpenPeer, outside: Path, content: Content, tmp_path: Path
) -> None:
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        handle = await peer.create("a/before")
        daemon.root.rename(tmp_path / "moved")
        daemon.root.symlink_to(outside)
        await peer.fill(handle, content(MIB))
        await peer.commit(handle, MIB)
        await peer.ask(FrameType.PUT, pb.Put(name="a/small", content=b"small"))
        listed = await peer.ask(FrameType.LIST, pb.List())
        assert [file.name for file in listed.files] == ["a/before", "a/small"]
        daemon.root.unlink()
        (tmp_path / "moved").rename(daemon.root)
    assert (daemon.root / "a/before").read_bytes() == content(MIB)


async def test_a_worker_that_is_started_later_serves_the_root_that_was_opened(
    serve_workers: ServeWorkers, outside: Path, content: Content
) -> None:
    """Whatever has ROOT's name by then: here a link to somewhere else, and all workers are new."""
    workers, data = serve_workers(), content(MIB)
    root = workers.server.root
    moved = root.with_name("moved")
    async with workers.peer() as (peer, _):
        handle = await peer.create("x", upload_id=ID)
        await peer.fill(handle, data)
        await peer.ask(FrameType.SYNC, pb.Sync(), handle)
    root.rename(moved)
    root.symlink_to(outside)
    workers.kill(workers.pids[0])
    await workers.until_event("worker died")
    await workers.until_event("worker started", 3)
    workers.server.process.send_signal(signal.SIGHUP)
    await workers.until_event("workers replaced")
    async with workers.peer() as (peer, _):
        reply = await peer.resume(ID)
        await peer.commit(reply.upload, len(data))
        await peer.upload("y", data)
    root.unlink()
    moved.rename(root)
    for name in ("x", "y"):
        assert (root / name).read_bytes() == data
