"""The file system under ROOT becomes read-only while uploads run, as ext4 does at an error.

Somebody who remounts it by hand cannot: the kernel says EBUSY while files are open for writing. So
what is left is the kernel's own way, which takes no notice of them (errors=remount-ro, ext4(5)).
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.disks.mounted import run
from tests.lacking import lacking
from tests.uringd.conftest import SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.uringd.conftest import OpenPeer, Serving

    Content = Callable[[int], bytes]

UPLOAD_ID = "0123456789abcdef" * 2
REFUSED = {ErrorCode.IO, ErrorCode.BAD_NAME}
"""What a request hears that needs the disk: that it has failed, or that no name can be had."""
REPAIRED = (0, 1)
"""e2fsck(8): nothing was wrong, or it is not any more."""


@pytest.mark.root
@pytest.mark.parametrize("file_system", [("ext4", 64)], indirect=True)
async def test_a_file_system_that_becomes_read_only_loses_nothing_that_was_acknowledged(
    serving: Serving, open_peer: OpenPeer, file_system: Path, content: Content
) -> None:
    image = file_system.with_suffix(".image")
    device = run("findmnt", "-no", "SOURCE", file_system)
    run("mount", "-o", "remount,errors=remount-ro", file_system)
    data, root = content(3 * SLOT_BYTES), file_system / "root"
    features = ("resume", "small-uploads")
    async with (
        serving(root=root) as daemon,
        open_peer(daemon.unix, *features) as peer,
        open_peer(daemon.unix, *features) as other,
    ):
        await peer.upload("published", data)
        await other.ask(FrameType.PUT, pb.Put(name="small", content=data[:99]))
        handle = await peer.create("begun", upload_id=UPLOAD_ID)
        await peer.fill(handle, data[: 2 * SLOT_BYTES])
        synced = await peer.ask(FrameType.SYNC, pb.Sync(), handle)
        assert synced.durable == 2 * SLOT_BYTES
        written = await other.create("written")
        await other.fill(written, data)

        make_read_only(device)
        await peer.data(handle, 2 * SLOT_BYTES, data[2 * SLOT_BYTES :])
        for commit, lane in ((handle, peer), (written, other)):
            answer = await lane.refusal(FrameType.COMMIT, pb.Commit(size=len(data)), commit)
            assert answer.code in REFUSED, answer
        for request in (pb.Put(name="late", content=b"late"), pb.Create(name="late")):
            frame_type = FrameType.PUT if isinstance(request, pb.Put) else FrameType.CREATE
            answer = await other.refusal(frame_type, request)
            assert answer.code in REFUSED and "Read-only file system" in answer.text, answer
        for lane in (peer, other):
            await lane.ask(FrameType.PING, pb.Ping())
        found = await other.ask(FrameType.STAT, pb.Stat(name="published"))
        assert found.file.size == len(data)

    run("umount", file_system)
    repair(image)
    run("mount", "-o", "loop", image, file_system)
    async with serving(root=root) as daemon, open_peer(daemon.unix, *features) as peer:
        assert daemon.published == ["published", "small"]
        assert (root / "published").read_bytes() == data
        assert (root / "small").read_bytes() == data[:99]
        resumed = await peer.resume(UPLOAD_ID)
        assert [(part.offset, part.length) for part in resumed.durable] == [(0, 2 * SLOT_BYTES)]
        await peer.data(resumed.upload, 2 * SLOT_BYTES, data[2 * SLOT_BYTES :])
        await peer.commit(resumed.upload, len(data))
        assert (root / "begun").read_bytes() == data


def repair(image: Path) -> None:
    """Check the file system, which is not mounted."""
    done = subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True, text=True)
    assert done.returncode in REPAIRED, done.stdout


def make_read_only(device: str) -> None:
    """Have ext4 find an error."""
    trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
    try:
        trigger.write_text("test\n")
    except OSError as exc:
        lacking(f"no error can be made in ext4 here: {exc}")
