"""The server as a whole: how many it takes, how it leaves, and what it listens on."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from uringd.client import connect
from uringd.config import Settings
from uringd.errors import RefusedError
from uringd.listeners import ListenError, listen
from uringd.server import open_server
from uringd.urls import BadUrlError, TcpUrl, UnixUrl, Url, parse_url
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType
from uringio.lowlevel import Opcode

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Serving, SlowRing, Until


async def test_connections_are_limited_and_the_next_one_is_told(
    serving: Serving, open_peer: OpenPeer, until: Until
) -> None:
    async with serving(connections_max=2) as daemon:
        async with open_peer(daemon.unix), open_peer(daemon.tcp):
            for url in (daemon.unix, daemon.tcp):
                with pytest.raises(RefusedError) as caught:
                    async with connect(url):
                        pass
                assert caught.value.code == ErrorCode.TOO_MANY_CONNECTIONS
                assert caught.value.retryable
        await until(lambda: not daemon.server.sessions)
        async with open_peer(daemon.unix) as peer:
            await peer.upload("file", b"there is room again")


async def test_many_clients_at_once_get_what_they_sent(serving: Serving) -> None:
    async with serving() as daemon:

        async def upload(number: int) -> None:
            url = daemon.tcp if number % 2 else daemon.unix
            async with connect(url) as client, client.upload(f"{number}") as upload:
                for _ in range(5):
                    await upload.write(bytes([number]) * 50_000)
                await upload.commit()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(upload, number)
        for number in range(20):
            assert (daemon.root / f"{number}").read_bytes() == bytes([number]) * 250_000


async def test_a_shutdown_ends_idle_sessions_at_once(
    daemon: Daemon, open_peer: OpenPeer, until: Until
) -> None:
    async with open_peer(daemon.unix) as peer, open_peer(daemon.unix, hello=False) as silent:
        await until(lambda: len(daemon.server.sessions) == 2)
        with trio.fail_after(30):
            await daemon.server.shut_down()
        assert await peer.last_words() is None
        [shutdown] = peer.shutdowns
        assert shutdown.deadline_ms == 30_000
        assert await silent.last_words() is None


async def test_a_shutdown_lets_an_unfinished_upload_finish(
    daemon: Daemon, open_peer: OpenPeer, nursery: trio.Nursery
) -> None:
    async with open_peer(daemon.unix) as peer:
        handle = await peer.create()
        await peer.data(handle, 0, b"x" * 4096)
        nursery.start_soon(daemon.server.shut_down)
        while not peer.shutdowns:
            await peer.next_event()
        error = await peer.refusal(FrameType.CREATE, pb.Create(name="another"))
        assert error.code == ErrorCode.SHUTTING_DOWN
        await peer.data(handle, 4096, b"tail")
        await peer.commit(handle, 4100)
        assert await peer.last_words() is None, "with the last upload the session ends"
    assert (daemon.root / "file").read_bytes() == b"x" * 4096 + b"tail"


async def test_at_its_deadline_a_shutdown_aborts_what_is_unfinished(
    mock_clock: trio.testing.MockClock, daemon: Daemon, open_peer: OpenPeer, nursery: trio.Nursery
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        nursery.start_soon(daemon.server.shut_down)
        while not peer.shutdowns:
            await peer.next_event()
        mock_clock.jump(29)
        await peer.ask(FrameType.PING, pb.Ping())
        assert len(daemon.spool) == 1
        mock_clock.jump(2)
        assert await peer.last_words() is None
    assert (daemon.spool, daemon.published) == ([], [])


async def test_a_commit_that_is_at_work_survives_the_end_of_its_server(
    slow_ring: SlowRing, serving: Serving, open_peer: OpenPeer
) -> None:
    async with serving(slow_ring) as daemon, open_peer(daemon.unix) as peer:
        handle = await peer.create()
        slow_ring.hold(Opcode.FSYNC)
        await peer.send(peer.request(FrameType.COMMIT, pb.Commit(), handle))
        async with open_peer(daemon.unix) as other:
            await other.ask(FrameType.PING, pb.Ping())
        daemon.server.end_now()
        slow_ring.let_go()
        assert (await peer.answer()).type is FrameType.COMMIT, "either is true, and it is told"
        assert daemon.published == ["file"]


async def test_a_client_that_comes_while_the_server_leaves_is_told(
    daemon: Daemon, open_peer: OpenPeer, nursery: trio.Nursery
) -> None:
    async with open_peer(daemon.unix) as peer:
        await peer.create()
        nursery.start_soon(daemon.server.shut_down)
        while not peer.shutdowns:
            await peer.next_event()
        with pytest.raises(RefusedError) as caught:
            async with connect(daemon.unix):
                pass
        assert caught.value.code == ErrorCode.SHUTTING_DOWN


async def test_a_backend_that_is_not_what_was_asked_for_is_said_once(
    serving: Serving, open_peer: OpenPeer
) -> None:
    with capture_logs() as events:
        async with serving(backend="threads") as daemon, open_peer(daemon.unix) as peer:
            await peer.upload("1", b"x")
            await peer.upload("2", b"x")
    downgrades = [e for e in events if e["event"] == "not what was asked for"]
    assert len(downgrades) == len(daemon.server.ring.features.notes)


async def test_a_unix_socket_is_this_user_s_alone_and_goes_with_the_server(
    serving: Serving, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    async with serving():
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_the_name_of_a_dead_server_s_socket_is_taken_over(
    serving: Serving, open_peer: OpenPeer, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "socket"))
    async with serving() as daemon, open_peer(daemon.unix) as peer:
        await peer.upload("file", b"x")


async def test_a_living_server_s_socket_is_left_alone(daemon: Daemon, open_peer: OpenPeer) -> None:
    with pytest.raises(ListenError, match="the address is in use"):
        await listen(daemon.unix)
    with pytest.raises(ListenError, match="the address is in use"):
        await listen(daemon.tcp)
    async with open_peer(daemon.unix) as peer:
        await peer.upload("file", b"x")


async def test_a_file_is_not_taken_for_a_dead_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(ListenError):
        await listen(UnixUrl(str(tmp_path / "file")))
    assert (tmp_path / "file").read_bytes() == b"precious"


async def test_an_address_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    urls: list[Url] = [UnixUrl(str(tmp_path / "nowhere/socket")), TcpUrl("192.0.2.1", 0)]
    for url in urls:
        with pytest.raises(ListenError, match=r"cannot listen on .*: "):
            await listen(url)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("tcp://127.0.0.1:7433", TcpUrl("127.0.0.1", 7433)),
        ("tcp://localhost:0", TcpUrl("localhost", 0)),
        ("tcp://[::1]:7433", TcpUrl("::1", 7433)),
        ("unix:///run/uringd.sock", UnixUrl("/run/uringd.sock")),
        ("unix:///a%20b", UnixUrl("/a b")),
    ],
)
def test_addresses_are_read(text: str, url: TcpUrl | UnixUrl) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:7433", "tcp://[::1]:1", "unix:///a/b"])
def test_addresses_are_said_as_they_are_read(text: str) -> None:
    assert str(parse_url(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "file", "127.0.0.1:7433", "tcp://", "tcp://host", "tcp://:1", "tcp://host:99999"),
        *("tcp://host:port", "tcp://host:1/path", "tcp://user@host:1", "tcp://host:1?x=1"),
        *("http://host:1", "unix://relative", "unix://", "unix:///", "unix:///" + "x" * 108),
        *("tcp://[::1:1", "unix:relative", "unix:"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadUrlError):
        parse_url(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, *, loopback: bool) -> None:
    assert TcpUrl(host, 1).is_loopback is loopback


def test_a_socket_s_path_with_a_percent_sign_comes_back(tmp_path: Path) -> None:
    url = UnixUrl(os.fspath(tmp_path / "100%25"))
    assert parse_url(str(url)) == url


@pytest.mark.parametrize("backend", ["auto", "threads"])
async def test_the_log_tells_a_fallback_from_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Literal["auto", "threads"]
) -> None:
    monkeypatch.setattr("uringio._ring.uring.lib", None)
    settings = Settings(root=tmp_path, listen=(), backend=backend, slots=2, slot_bytes=64 << 10)
    with capture_logs() as logs:
        async with open_server(settings) as server:
            assert server.backend == "threads"
    fallbacks = [entry for entry in logs if "writing through threads" in str(entry.get("reason"))]
    assert len(fallbacks) == (1 if backend == "auto" else 0)


async def test_a_socket_that_another_server_has_bound_meanwhile_is_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    url = UnixUrl(str(path))
    first = await listen(url)
    path.unlink()
    second = await listen(url)
    await first.aclose()
    assert path.is_socket()
    stream = await trio.open_unix_socket(path)
    await stream.aclose()
    await second.aclose()
    assert not path.exists()
