"""The ways to receive that are compared. Each takes `Work` and leaves when all chunks are taken.

The service's own is `service`: the receiver of uringd. The others are what it might be instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from bench.harness.receiving.message import receive_all
from uringd.receiver import Receiver
from uringd.wire import HEADER_BYTES, Data, crc32c
from uringio.lowlevel import operations

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from bench.harness.receiving.work import Work
    from uringio.lowlevel import Slot

    Way = Callable[[Work], Awaitable[None]]


def bare(raw: socket.socket, total_bytes: int) -> int:
    """Receive into one piece of memory and look at nothing; the result is how many calls it took.

    The yardstick: what the socket costs when nothing is done with the bytes.
    """
    memory = memoryview(bytearray(1 << 20))
    calls, left = 0, total_bytes
    while left:
        left -= raw.recv_into(memory)
        calls += 1
    return calls


async def service(work: Work) -> None:
    """Receive as uringd does."""
    receiver = Receiver(work.socket, work.connection, _no_room)
    for _ in range(work.chunks):
        event = await receiver.next_event()
        assert isinstance(event, Data)
        slot = await work.ring.slots.acquire()
        work.take(slot, event, await receiver.receive_payload(slot.memory[: event.length]))


async def trio_recv(work: Work) -> None:
    """Receive a header, then its payload, by trio's recv_into."""
    await _header_then_payload(work, _fill)


async def trio_recvmsg(work: Work) -> None:
    """Receive a payload and the next header by trio's recvmsg_into."""
    header = bytearray(HEADER_BYTES)
    for _ in range(work.chunks):
        missing = memoryview(header)[: work.connection.bytes_wanted]
        if missing:
            await _fill(work, missing)
            work.connection.receive_data(missing)
        event = work.event()
        slot = await work.ring.slots.acquire()
        view = slot.memory[: event.length]
        done = 0
        while done < len(view):
            rest = view[done:]
            count, *_ = await work.socket.recvmsg_into([rest, header])
            work.calls += 1
            payload = min(count, len(rest))
            work.connection.payload_received(payload)
            done += payload
            if count > payload:
                work.connection.receive_data(header[: count - payload])
        work.take(slot, event, crc32c(view))


async def ring_recv(work: Work) -> None:
    """Receive a header by trio, then its payload by one RECV of the ring that waits for all."""
    await _header_then_payload(work, _perform)


async def ring_recvmsg(work: Work) -> None:
    """Receive a payload and the next header by one RECVMSG that waits for all, as MORE allows."""
    header = memoryview(bytearray(HEADER_BYTES))
    await _fill(work, header)
    event = work.header(header)
    while True:
        slot = await work.ring.slots.acquire()
        view = slot.memory[: event.length]
        await _perform(work, view, *([header] if event.more else []))
        work.connection.payload_received(event.length)
        work.take(slot, event, crc32c(view))
        if not event.more:
            return
        event = work.header(header)


async def ring_linked(work: Work) -> None:
    """Link the write behind the RECVMSG, and look at the checksum when both are done."""
    assert work.file is not None
    header = memoryview(bytearray(HEADER_BYTES))
    await _fill(work, header)
    event: Data | None = work.header(header)
    async with trio.open_nursery() as nursery:
        while event is not None:
            slot = await work.ring.slots.acquire()
            arrived = trio.Event()
            nursery.start_soon(_linked, work, slot, event, header, arrived)
            await arrived.wait()
            work.connection.payload_received(event.length)
            event = work.header(header) if event.more else None


async def _linked(
    work: Work, slot: Slot, event: Data, header: memoryview, arrived: trio.Event
) -> None:
    assert work.file is not None
    view = slot.memory[: event.length]
    receive = receive_all(work.raw.fileno(), [view, *([header] if event.more else [])])
    write = operations.write(
        work.file.fd, view, event.offset, event.length, buffer_index=slot.buffer_index
    )
    work.calls += 1
    done = trio.Event()
    results = [0, 0]

    def completed(index: int, result: int) -> None:
        results[index] = result
        (arrived, done)[index].set()

    reactor = work.ring.reactor
    tokens = reactor.ring.prepare_chain([receive, write])
    entries = reactor.counters.begun_chain([receive, write], completed)
    # The reactor tells of a chain as a whole; what is compared needs to know of its first half.
    reactor._waiting.update(zip(tokens, entries, strict=True))  # noqa: SLF001
    await done.wait()
    assert results[1] == event.length, results
    if crc32c(view) != event.crc32c:
        raise AssertionError(f"the chunk at {event.offset} differs from its checksum")
    work.ring.slots.release(slot)


async def _header_then_payload(
    work: Work, receive: Callable[[Work, memoryview], Awaitable[None]]
) -> None:
    header = bytearray(HEADER_BYTES)
    for _ in range(work.chunks):
        await _fill(work, memoryview(header))
        event = work.header(header)
        slot = await work.ring.slots.acquire()
        view = slot.memory[: event.length]
        await receive(work, view)
        work.connection.payload_received(event.length)
        work.take(slot, event, crc32c(view))


async def _perform(work: Work, *views: memoryview) -> None:
    work.calls += 1
    result = await work.ring.reactor.perform(receive_all(work.raw.fileno(), views))
    assert result == sum(map(len, views)), result


async def _no_room(length: int) -> None:
    raise AssertionError(f"room for a small upload of {length} bytes, and none is sent here")


async def _fill(work: Work, view: memoryview) -> None:
    while len(view):
        count = await work.socket.recv_into(view)
        work.calls += 1
        view = view[count:]


WAYS: dict[str, Way] = {
    "service": service,
    "trio-recv": trio_recv,
    "trio-recvmsg": trio_recvmsg,
    "ring-recv": ring_recv,
    "ring-recvmsg": ring_recvmsg,
    "ring-linked": ring_linked,
}
WRITING = frozenset({"ring-linked"})
"""Ways that are nothing without the write."""
