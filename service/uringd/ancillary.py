"""What sendmsg(2) and recvmsg(2) take and give beside the bytes: one descriptor (SCM_RIGHTS)."""

from __future__ import annotations

import socket
import struct

from uringd.wire import DESCRIPTORS_MAX

DESCRIPTOR = struct.Struct("=i")

ANCILLARY_BYTES = socket.CMSG_LEN(DESCRIPTORS_MAX * DESCRIPTOR.size)
"""Room for one. CMSG_SPACE would be padded on 64-bit systems, and have room for a second."""

Ancillary = list[tuple[int, int, bytes]]


def descriptors_of(ancillary: Ancillary) -> list[int]:
    """Find the descriptors in what recvmsg(2) returned; they are the caller's from now on."""
    return [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) - len(data) % DESCRIPTOR.size])
    ]


def ancillary_for(descriptor: int) -> Ancillary:
    """Make what sendmsg(2) takes, for one descriptor."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, DESCRIPTOR.pack(descriptor))]
