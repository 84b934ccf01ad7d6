"""ROOT: names never become paths, links are never followed, nothing is left lying about."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.client import connect
from uringd.config import Settings
from uringd.errors import RefusedError
from uringd.root import HeldRoot, Root, RootError
from uringd.server import open_server
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Durability, ErrorCode, FrameType
from uringio.exceptions import OperationError
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import Fault, SimulatedRing

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving

BAD_NAMES = [
    "",
    "/etc/passwd",
    "a/",
    "a//b",
    ".",
    "..",
    "a/./b",
    "a/../../b",
    "a\nb",
    "a\x00b",
    "a\x7fb",
    "a\x9bb",
    ".uringd",
    ".uringd/spool/x",
    ".URINGD/x",
    "x" * 256,
    "x/" * 512 + "x",
]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_bad_name_costs_its_request(daemon: Daemon, open_peer: OpenPeer, name: str) -> None:
    async with open_peer(daemon.unix) as peer:
        for frame_type, message in [
            (FrameType.CREATE, pb.Create(name=name)),
            (FrameType.CREATE, pb.Create(name=name, overwrite=True)),
            (FrameType.STAT, pb.Stat(name=name)),
        ]:
            error = await peer.refusal(frame_type, message)
            assert error.code == ErrorCode.BAD_NAME
        await peer.ask(FrameType.PING, pb.Ping())
    assert (daemon.published, daemon.spool) == ([], [])


@pytest.mark.parametrize(
    "name",
    ["ä/ö/ü", "with space", "-rf", "x" * 255, "a/.uringd/b", "...", "~", "*", "a/b/c/d/e/f/g/h"],
)
async def test_names_are_taken_as_they_are_and_directories_made(
    daemon: Daemon, open_peer: OpenPeer, name: str
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload(name, b"content")
        stat = await peer.ask(FrameType.STAT, pb.Stat(name=name))
        assert (stat.file.name, stat.file.size) == (name, 7)
    assert (daemon.root / name).read_bytes() == b"content"


async def test_an_existing_name_is_refused_at_create(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload("file", b"first")
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="file"))
        assert error.code == ErrorCode.EXISTS
        assert daemon.spool == []
    assert (daemon.root / "file").read_bytes() == b"first"


async def test_overwrite_replaces_a_file_at_commit_and_not_before(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload("file", b"first")
        handle = await peer.create("file", overwrite=True)
        await peer.data(handle, 0, b"second")
        await peer.ask(FrameType.SYNC, pb.Sync(), handle)
        assert (daemon.root / "file").read_bytes() == b"first"
        await peer.commit(handle, 6)
    assert (daemon.root / "file").read_bytes() == b"second"


async def test_who_commits_first_has_the_name(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        first, second = await peer.create("file"), await peer.create("file")
        await peer.data(first, 0, b"first")
        await peer.data(second, 0, b"second")
        await peer.commit(second, 6)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=5), first)
        assert error.code == ErrorCode.EXISTS
        await peer.ask(FrameType.ABORT, pb.Abort(), first)
        assert daemon.spool == []
    assert (daemon.root / "file").read_bytes() == b"second"


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_directory_s_name_is_taken_whatever_was_asked(
    daemon: Daemon, open_peer: OpenPeer, *, overwrite: bool
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload("directory/file", b"x")
        create = pb.Create(name="directory", overwrite=overwrite)
        error = await peer.refusal(FrameType.CREATE, create)
        assert error.code == ErrorCode.EXISTS
        # And when it comes between CREATE and COMMIT.
        handle = await peer.create("later", overwrite=overwrite)
        (daemon.root / "later").mkdir()
        before = daemon.server.instance_id
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(), handle)
        assert error.code == ErrorCode.EXISTS
        assert daemon.server.instance_id == before, "nothing was lost"
    assert (daemon.root / "directory/file").read_bytes() == b"x"


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_file_on_the_way_is_no_directory(
    daemon: Daemon, open_peer: OpenPeer, *, overwrite: bool
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload("file", b"x")
        create = pb.Create(name="file/below", overwrite=overwrite)
        assert (await peer.refusal(FrameType.CREATE, create)).code == ErrorCode.BAD_NAME
        stat = pb.Stat(name="file/below")
        assert (await peer.refusal(FrameType.STAT, stat)).code == ErrorCode.BAD_NAME
        assert daemon.spool == []


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_link_on_the_way_is_not_followed(
    daemon: Daemon, open_peer: OpenPeer, tmp_path: Path, *, overwrite: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (daemon.root / "link").symlink_to(outside)
    async with open_peer(daemon.unix) as peer:
        create = pb.Create(name="link/file", overwrite=overwrite)
        assert (await peer.refusal(FrameType.CREATE, create)).code == ErrorCode.BAD_NAME
        stat = pb.Stat(name="link/secret")
        assert (await peer.refusal(FrameType.STAT, stat)).code == ErrorCode.BAD_NAME
        reply = await peer.ask(FrameType.LIST, pb.List())
        assert list(reply.files) == []
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_link_that_is_planted_during_the_upload_is_not_followed(
    daemon: Daemon, open_peer: OpenPeer, tmp_path: Path, *, overwrite: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create("directory/file", overwrite=overwrite)
        await peer.data(handle, 0, b"content")
        (daemon.root / "directory").symlink_to(outside)
        error = await peer.refusal(FrameType.COMMIT, pb.Commit(size=7), handle)
        assert error.code == ErrorCode.BAD_NAME
        await peer.ask(FrameType.ABORT, pb.Abort(), handle)
    assert os.listdir(outside) == []


async def test_a_link_that_has_the_name_is_taken_for_a_file_and_never_followed(
    daemon: Daemon, open_peer: OpenPeer, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    (daemon.root / "link").symlink_to(target)
    async with open_peer(daemon.unix) as peer:
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="link"))
        assert error.code == ErrorCode.EXISTS
        stat = await peer.refusal(FrameType.STAT, pb.Stat(name="link"))
        assert stat.code == ErrorCode.NOT_FOUND
        await peer.upload("link", b"replaced", overwrite=True)
    assert target.read_bytes() == b"untouched"
    assert not (daemon.root / "link").is_symlink()
    assert (daemon.root / "link").read_bytes() == b"replaced"


async def test_what_the_server_makes_is_its_user_s_alone(serving: Serving) -> None:
    async with serving() as daemon:
        for path in [daemon.root, daemon.root / ".uringd", daemon.root / ".uringd/spool"]:
            assert path.stat().st_mode & 0o777 == 0o700


async def test_a_root_that_was_there_keeps_its_mode(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o755)
    (tmp_path / "root").chmod(0o755)
    async with serving() as daemon:
        assert daemon.root.stat().st_mode & 0o777 == 0o755


async def test_a_second_server_on_the_same_root_is_refused(
    daemon: Daemon, count_descriptors: Callable[[], int]
) -> None:
    before = count_descriptors()
    for _ in range(2):
        with pytest.raises(RootError, match="another uringd serves"):
            async with open_server(Settings(root=daemon.root, listen=())):
                pass
    assert count_descriptors() == before


async def test_a_root_that_is_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(RootError, match=r"cannot serve .*root: File exists"):
        async with open_server(Settings(root=tmp_path / "root", listen=())):
            pass


async def test_spool_files_that_nobody_holds_are_removed_at_the_start(tmp_path: Path) -> None:
    spool = tmp_path / "root/.uringd/spool"
    spool.mkdir(parents=True)
    abandoned, held = spool / ("a" * 32 + ".part"), spool / ("b" * 32 + ".part")
    for path in (abandoned, held):
        path.write_bytes(b"x")
    (spool / "directory").mkdir()
    (spool / "link").symlink_to(abandoned)
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with open_server(Settings(root=tmp_path / "root", listen=(), slots=2)):
            assert not abandoned.exists()
            assert held.exists(), "a write of a killed server may still be on its way to it"
    async with open_server(Settings(root=tmp_path / "root", listen=(), slots=2)):
        assert not held.exists()


async def test_an_upload_s_spool_file_is_locked_while_it_lives(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        [name] = daemon.spool
        path = daemon.root / ".uringd/spool" / name
        with path.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_files_are_listed_in_byte_order_page_by_page(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a/b-c/d", "b", "c/d", "z", "ä"]
    for name in names:
        if name == "a/b":  # "a" is a file, so its directory cannot be
            continue
        path = daemon.root / name.replace("a/", "aa/")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(name.encode())
    expected = sorted(
        (str(p.relative_to(daemon.root)) for p in daemon.root.rglob("*") if p.is_file()),
        key=os.fsencode,
    )
    expected = [name for name in expected if not name.startswith(".uringd")]
    async with open_peer(daemon.unix) as peer:
        listed: list[str] = []
        more = True
        while more:
            message = pb.List(after=listed[-1] if listed else "", limit=2)
            reply = await peer.ask(FrameType.LIST, message)
            assert len(reply.files) <= 2
            listed += [file.name for file in reply.files]
            more = reply.more
        assert listed == expected
        reply = await peer.ask(FrameType.LIST, pb.List(prefix="a"))
        assert [file.name for file in reply.files] == [n for n in expected if n[0] == "a"]
        reply = await peer.ask(FrameType.LIST, pb.List(prefix="nothing"))
        assert (list(reply.files), reply.more) == ([], False)


async def test_a_directory_s_files_sort_as_their_whole_names_do(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    for name in ["a/x", "a-", "a0", "a/b/y", "a."]:
        path = daemon.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
    async with open_peer(daemon.unix) as peer:
        reply = await peer.ask(FrameType.LIST, pb.List())
        assert [file.name for file in reply.files] == ["a-", "a.", "a/b/y", "a/x", "a0"]


async def test_names_that_the_wire_cannot_say_are_left_out_and_hide_no_other(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    for name in [b"a", b"b\xff", b"c"]:
        path = os.path.join(os.fsencode(daemon.root), name)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    async with open_peer(daemon.unix) as peer:
        reply = await peer.ask(FrameType.LIST, pb.List(limit=1))
        assert ([file.name for file in reply.files], reply.more) == (["a"], True)
        reply = await peer.ask(FrameType.LIST, pb.List(limit=1, after="a"))
        assert [file.name for file in reply.files] == ["c"]


async def test_a_list_that_is_longer_than_one_answer_says_so(
    daemon: Daemon, open_peer: OpenPeer
) -> None:
    for number in range(1100):
        (daemon.root / f"{number:04}").write_bytes(b"")
    async with open_peer(daemon.unix) as peer:
        first = await peer.ask(FrameType.LIST, pb.List())
        assert first.more
        rest = await peer.ask(FrameType.LIST, pb.List(after=first.files[-1].name))
        assert not rest.more
    names = [file.name for file in (*first.files, *rest.files)]
    assert names == [f"{number:04}" for number in range(1100)]


async def test_stat_tells_a_file_s_size_and_time(daemon: Daemon, open_peer: OpenPeer) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.upload("directory/file", b"12345")
        stat = await peer.ask(FrameType.STAT, pb.Stat(name="directory/file"))
        found = (daemon.root / "directory/file").stat()
        assert (stat.file.size, stat.file.modified_ns) == (5, found.st_mtime_ns)
        for name in ["nothing", "directory", "directory/nothing", "no/where"]:
            error = await peer.refusal(FrameType.STAT, pb.Stat(name=name))
            assert error.code == ErrorCode.NOT_FOUND


async def test_the_client_hears_the_same_refusals(daemon: Daemon) -> None:
    (daemon.root / "there").write_bytes(b"")
    async with connect(daemon.unix) as client:
        for name, code in [("there", ErrorCode.EXISTS), ("../out", ErrorCode.BAD_NAME)]:
            with pytest.raises(RefusedError) as caught:
                async with client.upload(name):
                    pass
            assert caught.value.code == code
            assert "\n" not in str(caught.value)
        async with client.upload("there", overwrite=True, durability="written") as upload:
            receipt = await upload.commit()
        assert receipt.durability == Durability.WRITTEN.name.lower()


async def test_a_directory_that_was_there_is_made_durable_before_anything_in_it(
    serving: Serving, open_peer: OpenPeer
) -> None:
    """Whoever made it may have been killed before its fsync."""
    ring = SimulatedRing(1)
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        (daemon.root / "there").mkdir()
        for number in range(2):
            ring.history.clear()
            await peer.upload(f"there/{number}", b"x")
            asked = [op.opcode for op, result in ring.history if result >= 0]
            before = asked[: asked.index(Opcode.RENAMEAT)]
            assert before.count(Opcode.FSYNC) == 2 - number, "the file's, and once the root's"


async def test_one_list_at_a_time_reads_the_tree(daemon: Daemon, open_peer: OpenPeer) -> None:
    walks = daemon.server.root._walks
    answered: list[int] = []

    async def ask() -> None:
        async with open_peer(daemon.unix) as peer:
            answered.append(len((await peer.ask(FrameType.LIST, pb.List())).files))

    (daemon.root / "file").write_bytes(b"")
    async with trio.open_nursery() as nursery, walks:
        for _ in range(3):
            nursery.start_soon(ask)
        while walks.statistics().tasks_waiting < 3:
            await trio.lowlevel.checkpoint()
        assert answered == []
    assert answered == [1, 1, 1]


async def test_more_directories_than_are_remembered_are_made_durable_again(
    serving: Serving, open_peer: OpenPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uringd.root.DIRECTORIES_KNOWN_MAX", 1)
    ring = SimulatedRing(1)
    async with serving(ring) as daemon, open_peer(daemon.unix) as peer:
        for number, name in enumerate(["a/0", "b/1", "a/2", "a/3"]):
            ring.history.clear()
            await peer.upload(name, b"x")
            asked = [op.opcode for op, result in ring.history if result >= 0]
            before = asked[: asked.index(Opcode.RENAMEAT)]
            assert before.count(Opcode.FSYNC) == (1 if number == 3 else 2), name


def test_a_root_whose_private_directory_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".uringd").touch()
    with pytest.raises(RootError, match="cannot write to"):
        Root(tmp_path)


def test_a_private_directory_is_made_for_who_asks(tmp_path: Path) -> None:
    root = Root(tmp_path)
    for _ in range(2):
        fd = root.open_private("more")
        assert os.path.samestat(os.fstat(fd), (tmp_path / ".uringd/more").stat())
        assert os.fstat(fd).st_mode & 0o777 == 0o700
        os.close(fd)
    root.close()


@pytest.mark.parametrize(("number", "where"), [(1, "."), (2, "sub/")])
async def test_a_list_lacks_nothing_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    (tmp_path / "sub").mkdir()
    root = Root(tmp_path)
    scandir, calls = os.scandir, 0

    def fails(fd: int) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(OperationError) as info:
        await root.list_published("", "", 10)
    assert (info.value.errno, info.value.operation, info.value.path) == (errno.EIO, "list", where)
    root.close()


@pytest.mark.parametrize("opcode", [Opcode.MKDIRAT, Opcode.FSYNC])
async def test_a_directory_that_cannot_be_made_or_made_durable_is_not_published_in(
    tmp_path: Path, opcode: Opcode, count_descriptors: Callable[[], int]
) -> None:
    root = Root(tmp_path)
    faults = [Fault(opcode, result=-errno.EIO)]
    async with run_ring(SimulatedRing(1, faults=faults)) as ring:
        before = count_descriptors()
        with pytest.raises(OperationError, match="EIO"):
            await root.open_parent(ring.reactor, ("sub", "file"))
        assert count_descriptors() == before
        os.close(await root.open_parent(ring.reactor, ("sub", "file")))
        assert count_descriptors() == before
    root.close()


async def test_a_directory_that_went_away_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").touch()
    root = Root(tmp_path)
    scandir, sub = os.scandir, (tmp_path / "sub").stat().st_ino

    def gone(fd: int) -> object:
        (tmp_path / "sub").rmdir()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(
        os, "scandir", lambda fd: gone(fd) if os.fstat(fd).st_ino == sub else scandir(fd)
    )
    assert [found.name for found in await root.list_published("", "", 10)] == ["file"]
    root.close()


def test_a_spool_file_is_known_by_its_name(tmp_path: Path) -> None:
    root = Root(tmp_path)
    assert not root.is_spooled("aa" * 16)
    (tmp_path / ".uringd/spool" / f"{'aa' * 16}.part").touch()
    assert root.is_spooled("aa" * 16)
    root.close()


def test_what_another_process_opened_is_served_under_its_lock(tmp_path: Path) -> None:
    first = Root(tmp_path / "root")
    held = first.held
    second = Root(
        tmp_path / "elsewhere", HeldRoot(*map(os.dup, (held.fd, held.private_fd, held.lock_fd)))
    )
    first.close()
    with pytest.raises(RootError, match="another uringd"):
        Root(tmp_path / "root")
    assert second.spooled() == set()
    second.close()
    Root(tmp_path / "root").close()
    assert not (tmp_path / "elsewhere").exists(), "its path was not looked up"
