"""Attaching shared memory to a connection. PROTOCOL.md, "Shared memory".

`auto` is the stream, also to a server of the same machine. `copy` makes the same promises and
spares a copy here, but the server's read of tmpfs is a hop to a kernel worker, for tmpfs cannot be
asked not to wait (RWF_NOWAIT is EOPNOTSUPP): in interleaved rounds it took 0.57 to 0.67 CPU seconds
of the server for a GiB where the stream took 0.43 to 0.50, at no higher rate. `sealed` pays for new
pages with every chunk, and `slab`, the cheapest by half, promises less. So each is for who asks for
it: an application that has its data in shared memory already, or can fill a slot. What is asked for
and cannot be had is refused.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Literal

import anyio

from uringd.client.places import AttachedPlaces, SealedPlaces
from uringd.errors import ConnectionLostError, RefusedError
from uringd.urls import UnixUrl
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import ErrorCode, FrameType, MemoryMode

if TYPE_CHECKING:
    from uringd.client.link import Link
    from uringd.client.places import Places
    from uringd.urls import Url

Transport = Literal["auto", "socket", "copy", "sealed", "slab"]

MODES = ("copy", "sealed", "slab")


def wanted(url: Url, transport: Transport) -> tuple[str, ...]:
    """Name the features to ask for. Raises RefusedError where a mode cannot be had from here."""
    if transport not in MODES:
        return ()
    if not isinstance(url, UnixUrl):
        text = f"{transport} needs a Unix socket of this machine, and {url} is none"
        raise RefusedError(ErrorCode.UNSUPPORTED, text)
    if not hasattr(os, "memfd_create"):
        text = f"{transport} needs memfd_create(2), which this system has not"
        raise RefusedError(ErrorCode.UNSUPPORTED, text)
    return (transport,)


def check_offered(link: Link, transport: Transport) -> None:
    """Refuse what a server does not offer: nothing is downgraded in silence."""
    if transport in MODES and transport not in link.features:
        text = f"the server at {link.url} does not offer {transport}"
        raise RefusedError(ErrorCode.UNSUPPORTED, text)


async def attach(link: Link, transport: Transport, *, read_back: bool) -> None:
    """Have the link's chunks go through shared memory, if that was asked for.

    Raises RefusedError, ConnectionLostError. Cancelled while it asks, it closes the link: memory
    may be attached there that nobody knows of, and a session attaches once.
    """
    if link.places is not None or transport not in MODES:
        return
    try:
        if transport == "sealed":
            link.places = SealedPlaces(link.chunk_bytes)
        elif transport == "copy":
            link.places = await _copy(link)
        else:
            link.places = await _slab(link, read_back=read_back)
    except OSError as exc:
        text = f"there is no memory to share ({exc.strerror}): take another transport"
        raise RefusedError(ErrorCode.UNSUPPORTED, text) from exc
    except anyio.get_cancelled_exc_class():
        await link.aclose()
        raise


async def _copy(link: Link) -> Places:
    """Attach memory of ours: one chunk more than there is credit for is filled meanwhile."""
    size = (link.credit.available + 1) * link.chunk_bytes
    memory = os.memfd_create("uringd chunks", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, size)
        mapping = mmap.mmap(memory, size, flags=mmap.MAP_SHARED)
        message = pb.Attach(mode=_MODE[MemoryMode.COPY], descriptors=1, bytes=size)
        await link.request(FrameType.ATTACH, message, descriptor=memory)
    finally:
        os.close(memory)
    return AttachedPlaces("copy", mapping, link.chunk_bytes)


async def _slab(link: Link, *, read_back: bool) -> Places:
    """Attach memory of the server's. It is sealed when we have mapped it, not before."""
    message = pb.Attach(mode=_MODE[MemoryMode.SLAB], read_back=read_back)
    with link.expecting_descriptor() as came:
        reply: pb.AttachReply = await link.request(FrameType.ATTACH, message)
        if len(came) != 1 or reply.descriptors != 1:
            raise ConnectionLostError(f"the slab of {link.url} was lost on the way")
        mapping = mmap.mmap(came[0], reply.bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    message.mapped = True
    try:
        await link.request(FrameType.ATTACH, message)
    except BaseException:
        with contextlib.suppress(BufferError):
            mapping.close()
        raise
    return AttachedPlaces("slab", mapping, reply.slot_bytes)


_MODE = {mode: pb.MemoryMode.Name(mode) for mode in MemoryMode if mode}
