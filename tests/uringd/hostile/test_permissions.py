"""Modes, owners, attributes and mounts that change under ROOT while uploads run.

None of it loses an upload: what is durable stays, and COMMIT can be asked again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disks.mounted import run
from tests.lacking import need_root
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving

NOBODY = 65534


@pytest.mark.root
def test_modes_and_owners_that_refuse_a_name_cost_no_upload() -> None:
    """As a user that is not root, for root may do all: bytes that are durable are not thrown away
    for a mode that can be changed back, or for a file of somebody else that has the name."""
    need_root("becoming another user")
    flag = "-I" if sys.flags.isolated else "-P"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:  # which that user can reach
        os.chown(home, NOBODY, NOBODY)
        run(sys.executable, flag, Path(__file__).with_name("permissions.py"), home, NOBODY)


@pytest.mark.root
@pytest.mark.parametrize("attribute", ["i", "a"])
@pytest.mark.parametrize("file_system", [("ext4", 32)], indirect=True)
async def test_an_immutable_target_or_directory_costs_no_upload(
    serving: Serving, open_peer: OpenPeer, file_system: Path, attribute: str
) -> None:
    async with (
        serving(root=file_system / "root") as daemon,
        open_peer(daemon.unix, "resume", "small-uploads") as peer,
    ):
        (daemon.root / "dir").mkdir()
        (daemon.root / "dir/x").write_bytes(b"old")
        handle = await peer.create("dir/x", overwrite=True)
        await peer.data(handle, 0, b"new")
        for place in ("dir/x", "dir"):
            run("chattr", f"+{attribute}", daemon.root / place)
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(size=3), handle)
            assert refusal.code == ErrorCode.BAD_NAME
            put = pb.Put(name="dir/x", content=b"new", overwrite=True)
            assert (await peer.refusal(FrameType.PUT, put)).code == ErrorCode.BAD_NAME
            run("chattr", f"-{attribute}", daemon.root / place)
            assert (daemon.root / "dir/x").read_bytes() == b"old"
        await peer.commit(handle, 3)
        assert (daemon.root / "dir/x").read_bytes() == b"new"


@pytest.mark.root
async def test_a_mount_point_under_root_is_another_disk_and_costs_no_upload(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    need_root("a mount")
    point = daemon.root / "mounted"
    point.mkdir()
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        handle = await peer.create("mounted/x")
        await peer.data(handle, 0, b"content")
        run("mount", "-t", "tmpfs", "hostile", point)
        try:
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(size=7), handle)
            assert refusal.code == ErrorCode.BAD_NAME
            put = pb.Put(name="mounted/y", content=b"small")
            assert (await peer.refusal(FrameType.PUT, put)).code == ErrorCode.BAD_NAME
            assert os.listdir(point) == []
        finally:
            run("umount", point)
        await peer.commit(handle, 7)
        assert (point / "x").read_bytes() == b"content"


@pytest.mark.root
async def test_a_file_that_something_is_mounted_on_is_not_replaced_and_costs_no_upload(
    daemon: Daemon, open_peer: OpenPeer, outside: Path
) -> None:
    need_root("a mount")
    (daemon.root / "x").write_bytes(b"below")
    async with open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("x", overwrite=True)
        await peer.data(handle, 0, b"content")
        run("mount", "--bind", outside / "secret", daemon.root / "x")
        try:
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(size=7), handle)
            assert refusal.code == ErrorCode.BAD_NAME
        finally:
            run("umount", daemon.root / "x")
        await peer.commit(handle, 7)
    assert (daemon.root / "x").read_bytes() == b"content"
