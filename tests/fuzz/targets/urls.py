"""Addresses of a server, from a command line or a setting."""

from __future__ import annotations

from tests.fuzz.targets.target import Target
from uringd.urls import UNIX_PATH_BYTES_MAX, BadUrlError, TcpUrl, UnixUrl, parse_url


def run(data: bytes) -> None:
    """An address is refused with one sentence, or it is what its own text says."""
    text = data.decode(errors="surrogateescape")
    try:
        url = parse_url(text)
    except BadUrlError as exc:
        assert str(exc)
        return
    match url:
        case TcpUrl(host, port):
            assert host
            assert 0 <= port <= 65535
            assert url.is_loopback in (True, False)
        case UnixUrl(path):
            assert path.startswith("/")
            assert "\0" not in path
            assert len(path.encode()) <= UNIX_PATH_BYTES_MAX
    assert parse_url(str(url)) == url


def seeds() -> dict[str, bytes]:
    texts = ["tcp://127.0.0.1:7433", "tcp://[::1]:0", "tcp://localhost:1/", "unix:///run/a.sock"]
    texts += ["unix:///a%20b%3f", "unix://host/a", "tcp://a", "http://a:1", "tcp://u@a:1", "x"]
    texts += ["tcp://[fe80::1%25eth0]:1", "tcp://ä.de:1", "unix:///%ff", "unix:///" + "a" * 107]
    return {f"url-{at}": text.encode() for at, text in enumerate(texts)}


TARGET = Target("urls", run, seeds, bytes_max=300)
