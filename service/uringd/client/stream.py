"""The bytes between a client and a server: connected, and the sockets set up for bulk."""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

from uringd.errors import ConnectionLostError
from uringd.urls import TcpUrl

if TYPE_CHECKING:
    from uringd.urls import Url

CONNECT_TIMEOUT_S = 30.0
"""For the connection and HELLO together: beyond it nobody is there."""

UNIX_SEND_BYTES = 4 << 20
"""Send buffer of a Unix socket, two chunks: at the default of 208 KiB the two sides wake each other
ten times a chunk. The kernel cuts it to net.core.wmem_max. TCP tunes its own."""


async def open_stream(url: Url) -> anyio.abc.SocketStream:
    """Connect. Raises ConnectionLostError when nobody answers within 30 s."""
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            if isinstance(url, TcpUrl):
                stream = await anyio.connect_tcp(url.host, url.port)
                raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # no SQL here
                raw.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
                return stream
            stream = await anyio.connect_unix(url.path)
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # no SQL here
            raw.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, UNIX_SEND_BYTES)
            return stream
    except TimeoutError:
        reason = f"no answer for {CONNECT_TIMEOUT_S:.0f} s"
    except OSError as exc:
        reason = _why(exc)
    raise ConnectionLostError(f"cannot connect to {url}: {reason}; is uringd serving there?")


def _why(exc: OSError) -> str:
    cause: BaseException | None = exc
    while cause is not None:  # anyio wraps what the socket said
        if isinstance(cause, OSError) and cause.errno:
            if cause.errno in errno.errorcode:
                return os.strerror(cause.errno)
            return cause.strerror or str(cause)  # getaddrinfo(3) has numbers of its own
        cause = cause.__cause__
    return str(exc)
