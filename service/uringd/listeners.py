"""Sockets that a server listens on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import stat
from dataclasses import dataclass

import trio

from uringd.urls import TcpUrl, UnixUrl, Url

BACKLOG = 1024
"""Connections that the kernel holds until they are accepted (listen(2)); it cuts this to its own
limit, net.core.somaxconn."""


class ListenError(Exception):
    """An address cannot be listened on; the text says why and what mends it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and the address that clients are told."""

    url: Url
    socket: trio.SocketListener
    bound: tuple[int, int] | None = None
    """Device and inode of a Unix socket's name: a later one's is not ours to remove."""

    @property
    def transport(self) -> str:
        """How the receipt calls it."""
        return "tcp" if isinstance(self.url, TcpUrl) else "unix"

    async def aclose(self) -> None:
        """Remove the socket's name while the inode is held and cannot be reused; stop listening."""
        try:
            if isinstance(self.url, UnixUrl):
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_remove, self.url.path, self.bound)
        finally:
            await self.socket.aclose()


async def listen(url: Url) -> Listener:
    """Listen on an address. Raises ListenError."""
    try:
        if isinstance(url, UnixUrl):
            socket = trio.SocketListener(_bind_unix(url.path))
            return Listener(url, socket, _identity(url.path))
        [listener, *more] = await trio.open_tcp_listeners(url.port, host=url.host, backlog=BACKLOG)
        for extra in more:  # one name, several addresses: one is enough and is the one we name
            await extra.aclose()
        host, port, *_ = listener.socket.getsockname()
        return Listener(TcpUrl(host, port), listener)
    except OSError as exc:
        raise ListenError(f"cannot listen on {url}: {_why(exc)}") from exc


def _bind_unix(path: str) -> trio.socket.SocketType:
    """Bind with mode 0600: only this user connects. A name left by a dead server is taken over."""
    if _is_dead_socket(path):
        os.unlink(path)
    raw = stdlib_socket.socket(stdlib_socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            raw.bind(path)
        finally:
            os.umask(before)
        raw.listen(BACKLOG)
    except BaseException:
        raw.close()
        raise
    raw.setblocking(False)
    return trio.socket.from_stdlib_socket(raw)


def _is_dead_socket(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:  # somebody has removed it already
        return None
    return found.st_dev, found.st_ino


def _remove(path: str, bound: tuple[int, int] | None) -> None:
    if bound is None or _identity(path) != bound:
        return
    with contextlib.suppress(OSError):
        os.unlink(path)


def _why(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the address is in use; stop what listens there, or choose another"
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return "no permission; choose a port above 1023, or a directory of your own"
    return exc.strerror or str(exc)
