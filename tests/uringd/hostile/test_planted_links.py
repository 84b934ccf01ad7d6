"""Links, directories and special files that somebody plants under ROOT while uploads run.

What other tools fell for, most of it listed with rsync 3.5.0: a parent directory that becomes a
link between the check and the use (CVE-2026-29518, 43619, 53785, 53796, 70460), a link to a link
(CVE-2024-12088), a last component that becomes a link (CVE-2024-12747), a list that reads beyond
the tree (CVE-2026-53801), a removal that follows a link (CVE-2026-53800). `outside` fails each of
these tests if a name, a mode or a byte outside of ROOT has changed.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.lacking import need_root
from tests.uringd.conftest import SLOT_BYTES
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Peer, Serving, SlowRing, Until
    from tests.uringd.hostile.conftest import Bystander

Content = Callable[[int], bytes]
Plant = Callable[[Path, Path], None]

AT_FDCWD, RENAME_EXCHANGE = -100, 2

SWAPS = 60
"""Commits while a directory is exchanged with a link again and again."""


def link_to_outside(place: Path, outside: Path) -> None:
    place.symlink_to(outside)


def link_to_a_link(place: Path, outside: Path) -> None:
    first = place.with_name(f"{place.name}-first")
    first.symlink_to(outside)
    place.symlink_to(first.name)


def link_upwards(place: Path, outside: Path) -> None:
    place.symlink_to(Path("..") / outside.name)


def magic_link(place: Path, outside: Path) -> None:
    """By way of what proc(5) has of the process that follows it, which is no path at all."""
    place.symlink_to(f"/proc/self/root{outside}")


def link_to_itself(place: Path, outside: Path) -> None:
    place.symlink_to(place.name)


LINKS: list[Plant] = [link_to_outside, link_to_a_link, link_upwards, magic_link, link_to_itself]


@pytest.fixture(params=LINKS, ids=lambda plant: plant.__name__)
def plant(request: pytest.FixtureRequest) -> Plant:
    chosen: Plant = request.param
    return chosen


@pytest.mark.parametrize("small", [False, True], ids=["upload", "put"])
async def test_no_link_in_place_of_a_directory_leads_out(
    daemon: Daemon,
    open_peer: OpenPeer,
    bystander: Bystander,
    outside: Path,
    plant: Plant,
    *,
    small: bool,
) -> None:
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        if small:
            plant(daemon.root / "a", outside)
            put = pb.Put(name="a/secret", content=b"x", overwrite=True)
            refusal = await peer.refusal(FrameType.PUT, put)
        else:
            handle = await peer.create("a/secret", overwrite=True)
            await peer.data(handle, 0, b"x")
            plant(daemon.root / "a", outside)
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(size=1), handle)
        assert refusal.code == ErrorCode.BAD_NAME
        await bystander(daemon.unix, daemon.root)
        (daemon.root / "a").unlink()
        if not small:  # nothing is lost by it
            await peer.commit(handle, 1)
            assert (daemon.root / "a/secret").read_bytes() == b"x"


async def test_a_link_that_has_the_name_is_replaced_and_not_written_through(
    daemon: Daemon, open_peer: OpenPeer, outside: Path, plant: Plant
) -> None:
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        handle = await peer.create("x", overwrite=True)
        await peer.data(handle, 0, b"content")
        plant(daemon.root / "x", outside / "secret")
        await peer.commit(handle, 7)
        assert not (daemon.root / "x").is_symlink()
        plant(daemon.root / "y", outside / "secret")
        put = pb.Put(name="y", content=b"secret", keep_equal=True)
        assert (await peer.refusal(FrameType.PUT, put)).code == ErrorCode.EXISTS
        assert os.readlink(daemon.root / "y"), "its bytes were not compared through it"
    assert (daemon.root / "x").read_bytes() == b"content"


async def test_a_hard_link_that_has_the_name_is_replaced_and_not_written_through(
    daemon: Daemon, open_peer: OpenPeer, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    (daemon.root / "x").hardlink_to(other)
    async with open_peer(daemon.unix, "small-uploads") as peer:
        await peer.upload("x", b"content", overwrite=True)
        (daemon.root / "y").hardlink_to(other)
        put = pb.Put(name="y", content=b"content", overwrite=True)
        await peer.ask(FrameType.PUT, put)
    assert other.read_bytes() == b"untouched"
    assert other.stat().st_nlink == 1


async def test_a_directory_that_becomes_a_link_at_any_moment_lets_nothing_out(
    daemon: Daemon, open_peer: OpenPeer, outside: Path
) -> None:
    """Somebody exchanges them as fast as it goes, while uploads are committed into it."""
    (daemon.root / "dir").mkdir()
    (daemon.root / "link").symlink_to(outside)
    ended = False

    def exchange() -> int:
        times = 0
        while not ended:
            _exchange(daemon.root / "dir", daemon.root / "link")
            times += 1
        return times

    codes: list[int] = []
    exchanged: list[int] = []

    async def exchange_on() -> None:
        exchanged.append(await trio.to_thread.run_sync(exchange))

    async with (
        open_peer(daemon.unix, "resume", "small-uploads") as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(exchange_on)
        try:
            codes += [await _publish(peer, number) for number in range(SWAPS)]
        finally:
            ended = True
    assert exchanged[0] > SWAPS
    assert set(codes) <= {0, ErrorCode.BAD_NAME}, "no error of the disk"
    published = [each.read_bytes() for each in daemon.root.rglob("f*")]
    assert published == [b"content"] * codes.count(0)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names at once, so that there never is a moment without either (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


async def _publish(peer: Peer, number: int) -> int:
    """Upload a file, or put it; the result is the error's code, 0 for success."""
    name = f"dir/sub-{number % 3}/f{number}"
    if number % 2:
        put = pb.Put(name=name, content=b"content", overwrite=True)
        await peer.send(peer.request(FrameType.PUT, put))
        event = await peer.answer()
    else:
        await peer.send(peer.request(FrameType.CREATE, pb.Create(name=name, overwrite=True)))
        event = await peer.answer()
        if event.type is FrameType.CREATE:
            handle = event.message.upload
            await peer.data(handle, 0, b"content")
            await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=7), handle))
            event = await peer.answer()
            if event.type is FrameType.ERROR:
                await peer.ask(FrameType.ABORT, pb.Abort(), handle)
    return int(event.message.code) if event.type is FrameType.ERROR else 0


async def test_a_directory_that_moves_between_its_opening_and_the_rename_takes_the_file_along(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, until: Until, outside: Path
) -> None:
    """The file goes where it would be had it been moved after the commit; never through the link
    that has the old name."""
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        (daemon.root / "dir").mkdir()
        handle = await peer.create("dir/x")
        await peer.data(handle, 0, b"content")
        slow_ring.hold(Opcode.RENAMEAT)
        await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=7), handle))
        await until(lambda: is_at_rename(slow_ring))
        (daemon.root / "dir").rename(daemon.root / "moved")
        (daemon.root / "dir").symlink_to(outside)
        slow_ring.let_go()
        assert (await peer.answer()).type is FrameType.COMMIT
        assert (daemon.root / "moved/x").read_bytes() == b"content"


def is_at_rename(ring: SlowRing) -> bool:
    """Whether a commit has opened its directory, and is about to give the file its name."""
    waiting = [chain.operations[chain.done] for chain in ring._submitted]
    return any(operation.opcode is Opcode.RENAMEAT for operation in waiting)


async def test_a_directory_that_is_removed_under_a_commit_costs_no_upload(
    serving: Serving, slow_ring: SlowRing, open_peer: OpenPeer, until: Until
) -> None:
    """What a job that removes empty directories does: asked again, it is made again."""
    async with serving(slow_ring) as daemon, open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("a/b/x")
        await peer.data(handle, 0, b"content")
        slow_ring.hold(Opcode.RENAMEAT)
        await peer.send(peer.request(FrameType.COMMIT, pb.Commit(size=7), handle))
        await until(lambda: is_at_rename(slow_ring))
        (daemon.root / "a/b").rmdir()
        slow_ring.let_go()
        event = await peer.answer()
        assert event.message.code == ErrorCode.BAD_NAME
        await peer.commit(handle, 7)
        assert (daemon.root / "a/b/x").read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory", "file on the way"])
async def test_what_is_no_file_is_replaced_or_refused_and_never_waited_for(
    daemon: Daemon, open_peer: OpenPeer, bystander: Bystander, tmp_path: Path, kind: str
) -> None:
    place = daemon.root / "x"
    name = "x/below" if kind == "file on the way" else "x"
    async with open_peer(daemon.unix, "resume", "small-uploads") as peer:
        handle = await peer.create(name, overwrite=True)
        await peer.data(handle, 0, b"content")
        _make(kind, place, tmp_path)
        for put in (
            pb.Put(name=name, content=b"content", keep_equal=True),
            pb.Put(name=name, content=b"content"),
        ):
            refusal = await peer.refusal(FrameType.PUT, put)
            assert refusal.code in {ErrorCode.EXISTS, ErrorCode.BAD_NAME}
        assert list((await peer.ask(FrameType.LIST, pb.List(prefix="x"))).files) == (
            [] if kind != "file on the way" else [_listed(peer, place)]
        )
        await bystander(daemon.unix, daemon.root)
        if kind in {"directory", "file on the way"}:
            refusal = await peer.refusal(FrameType.COMMIT, pb.Commit(size=7), handle)
            assert refusal.code in {ErrorCode.EXISTS, ErrorCode.BAD_NAME}
            place.rmdir() if kind == "directory" else place.unlink()
        await peer.commit(handle, 7)
    assert (daemon.root / name).read_bytes() == b"content"


def _listed(peer: Peer, place: Path) -> pb.FileInfo:
    found = place.stat()
    return pb.FileInfo(name=place.name, size=found.st_size, modified_ns=found.st_mtime_ns)


def _make(kind: str, place: Path, tmp_path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(place))
    elif kind == "device":
        need_root("a device")
        os.mknod(place, 0o666 | 0o020000, os.makedev(1, 7))  # /dev/full
    elif kind == "directory":
        place.mkdir()
    else:
        place.write_bytes(b"in the way")


async def test_removing_an_upload_follows_no_link(
    daemon: Daemon, open_peer: OpenPeer, until: Until, outside: Path
) -> None:
    async with open_peer(daemon.unix, "resume") as peer:
        created = await peer.ask(FrameType.CREATE, pb.Create(name="x"))
    await until(lambda: not daemon.uploads)
    spooled = daemon.root / ".uringd/spool" / f"{created.upload_id}.part"
    spooled.unlink()
    spooled.symlink_to(outside / "secret")
    async with open_peer(daemon.unix, "resume") as peer:
        resume = pb.Resume(upload_id=created.upload_id)
        refusal = await peer.refusal(FrameType.RESUME, resume)
        assert refusal.code in {ErrorCode.BAD_NAME, ErrorCode.IO}
        abort = pb.Abort(upload_id=created.upload_id)
        assert (await peer.refusal(FrameType.ABORT, abort)).code == ErrorCode.BUSY
        spooled.unlink()
        await peer.ask(FrameType.ABORT, abort)


def make_deeper_than_a_name(place: Path) -> None:
    """Make directories in one another, with a file in the last."""
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


async def test_a_list_follows_no_link_and_goes_no_deeper_than_a_name(
    daemon: Daemon, open_peer: OpenPeer, outside: Path, content: Content
) -> None:
    (daemon.root / "link").symlink_to(outside)
    make_deeper_than_a_name(daemon.root / "d")
    async with open_peer(daemon.unix) as peer:
        deepest = "d/" * 511 + "x"
        await peer.upload(deepest, content(SLOT_BYTES))
        reply = await peer.ask(FrameType.LIST, pb.List())
        assert [file.name for file in reply.files] == [deepest]
