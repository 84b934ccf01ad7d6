"""What a client can do with shared memory, by hand: frames with descriptors, slabs, memfds."""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from tests.uringd.conftest import PATIENCE_S, Refusal
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import NEED_DATA, Control, FrameType, crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.uringd.conftest import Peer

F_ADD_SEALS = 1033
SEAL, SHRINK, GROW, WRITE = 1, 2, 4, 8
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
ALL_SEALS = SEAL | SHRINK | GROW | WRITE


libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Slab:
    """A slab as its client has it; `fd` is the test's to close."""

    fd: int
    memory: mmap.mmap
    slot_bytes: int

    def __len__(self) -> int:
        return len(self.memory)


def memory_of(data: bytes, seals: int = 0) -> int:
    """Make a memfd with some bytes."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seals:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def punch(fd: int, length: int) -> int:
    """Punch a hole from the begin of a file (fallocate(2)); negative where that is refused."""
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    return int(libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(length)))


async def send(peer: Peer, frame: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a frame with descriptors."""
    if not descriptors:
        await peer.send(frame)
        return
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())
    with trio.fail_after(PATIENCE_S):
        sent = await peer.stream.socket.sendmsg([frame], [rights])
    assert sent == len(frame)


async def attach(
    peer: Peer, size: int, descriptors: Sequence[int], said: int | None = None
) -> Refusal | pb.AttachReply:
    """Attach memory for copy; the answer, whatever it is."""
    message = pb.Attach(
        mode="MEMORY_MODE_COPY",
        bytes=size,
        descriptors=len(descriptors) if said is None else said,
    )
    await send(peer, peer.request(FrameType.ATTACH, message), descriptors)
    return answered(await peer.answer())


async def attach_memory(peer: Peer, data: bytes) -> int:
    """Attach a memfd with some bytes; the result is ours to close."""
    fd = memory_of(data)
    reply = await attach(peer, len(data), [fd])
    assert isinstance(reply, pb.AttachReply), reply
    return fd


async def ask_for_slab(peer: Peer, *, read_back: bool = False) -> tuple[int, pb.AttachReply]:
    """Ask for a slab: its descriptor, ours to close, and what the server says of it."""
    message = pb.Attach(mode="MEMORY_MODE_SLAB", read_back=read_back)
    await peer.send(peer.request(FrameType.ATTACH, message))
    came: list[int] = []
    with trio.fail_after(PATIENCE_S):
        while (event := peer.connection.next_event()) is NEED_DATA:
            data, ancillary, _, _ = await peer.stream.socket.recvmsg(
                peer.connection.bytes_wanted, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
            )
            peer.connection.receive_data(data)
            for _, _, rights in ancillary:
                came += array.array("i", rights)
    reply = answered(event)
    assert isinstance(reply, pb.AttachReply), reply
    assert (len(came), reply.descriptors) == (1, 1)
    return came[0], reply


async def say_mapped(peer: Peer) -> Refusal | pb.AttachReply:
    message = pb.Attach(mode="MEMORY_MODE_SLAB", mapped=True)
    await peer.send(peer.request(FrameType.ATTACH, message))
    return answered(await peer.answer())


async def attach_slab(peer: Peer, *, read_back: bool = False) -> Slab:
    """Have a slab, mapped and sealed."""
    fd, reply = await ask_for_slab(peer, read_back=read_back)
    memory = mmap.mmap(fd, reply.bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    again = await say_mapped(peer)
    assert isinstance(again, pb.AttachReply), again
    return Slab(fd, memory, reply.slot_bytes)


async def place(
    peer: Peer,
    upload: int,
    offset: int,
    data: bytes,
    memory_offset: int,
    descriptors: Sequence[int] = (),
    wrong: Mapping[str, int] | None = None,
) -> None:
    """Say that a chunk lies in memory; `wrong` fields go before those that would be right."""
    fields = {
        "offset": offset,
        "length": len(data),
        "crc32c": crc32c(data),
        "memory_offset": memory_offset,
        "descriptors": len(descriptors),
    } | dict(wrong or {})
    frame = peer.connection.send_control(FrameType.PLACED, pb.Placed(**fields), upload=upload)
    peer.credit -= 1
    await send(peer, frame, descriptors)


def released(peer: Peer) -> list[int]:
    """Offsets that the server has released so far."""
    return [offset for _, ack in peer.acks for offset in ack.released]


def answered(event: Any) -> Refusal | pb.AttachReply:
    assert isinstance(event, Control) and event.cookie, event
    if event.type is FrameType.ERROR:
        return Refusal.of(event.message)
    assert isinstance(event.message, pb.AttachReply)
    return event.message
