"""Addresses of a server: tcp://host:port and unix:///path. The same words for serve and for put."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

UNIX_PATH_BYTES_MAX = 107
"""sun_path of sockaddr_un holds 108 bytes, one of them the end (unix(7))."""


class BadUrlError(ValueError):
    """Not an address that uringd knows."""


@dataclass(frozen=True, slots=True)
class TcpUrl:
    """A TCP address; port 0 is any free one, for listening."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class UnixUrl:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix://{quote(self.path, safe='/@:+,=')}"


Url = TcpUrl | UnixUrl


def parse_url(text: str) -> Url:
    """Read tcp://host:port or unix:///path. Raises `BadUrlError` with what would be right."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise BadUrlError(f"{text!r} is no address: {exc}") from None
    if parts.query or parts.fragment or parts.username is not None:
        raise BadUrlError(f"{text!r} has more than an address in it")
    if parts.scheme == "tcp" and parts.hostname and port is not None and not parts.path.strip("/"):
        try:
            parts.hostname.encode("idna")
        except UnicodeError:
            raise BadUrlError(f"{text!r} is no address: no host has such a name") from None
        return TcpUrl(parts.hostname, port)
    is_absolute = parts.path.startswith("/") and parts.path != "/"
    if parts.scheme == "unix" and not parts.netloc and is_absolute:
        try:
            path = unquote(parts.path, errors="strict")
            path.encode()
            length = len(os.fsencode(path))
        except UnicodeError:
            raise BadUrlError(f"{text!r} is no address: a socket's path is UTF-8") from None
        if "\0" in path:
            raise BadUrlError(f"{text!r} is no address: a socket's path has no zero byte in it")
        if length > UNIX_PATH_BYTES_MAX:
            raise BadUrlError(f"a socket's path has {UNIX_PATH_BYTES_MAX} bytes at the most")
        return UnixUrl(path)
    raise BadUrlError(f"{text!r} is no address: write tcp://127.0.0.1:7433 or unix:///path/socket")
