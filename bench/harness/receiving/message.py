"""recvmsg(2) by io_uring, which the library does not ship: the service is no faster with it.

It is made here from what the library has: a ring turns any opcode with memory into an SQE.
"""

from __future__ import annotations

import ctypes
import socket
from typing import TYPE_CHECKING, cast

from uringio.lowlevel import Opcode, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio.lowlevel import Reactor

IORING_OP_RECVMSG = 10
RECVMSG = cast("Opcode", IORING_OP_RECVMSG)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr (recvmsg(2)), and what it points to."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )
    kept: object


def receive_all(fd: int, views: Sequence[memoryview]) -> Operation:
    """Receive until all of `views` is full, the stream has ended, or it failed (MSG_WAITALL)."""
    anchors = [(ctypes.c_char * len(view)).from_buffer(view) for view in views]
    vectors = (_Vector * len(views))()
    for vector, anchor, view in zip(vectors, anchors, views, strict=True):
        vector.base, vector.length = ctypes.addressof(anchor), len(view)
    message = _Message(vectors=ctypes.addressof(vectors), vector_count=len(views))
    message.kept = vectors, anchors
    return Operation(RECVMSG, fd, 0, 1, cast("bytearray", message), flags=socket.MSG_WAITALL)


def teach(reactor: Reactor) -> None:
    """Have the reactor count such an operation as a read."""
    kinds = reactor.counters._kinds  # noqa: SLF001  # it knows the library's own operations only
    kinds[RECVMSG] = kinds[Opcode.READ]
