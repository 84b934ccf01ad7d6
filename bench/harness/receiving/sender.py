"""The other end: a process that sends frames as fast as the socket takes them.

Its content is there before it connects: 64 MiB of chunks, more than the caches of a core, each with
its header in front of it, which has the checksum already. What it costs is one sendmsg(2) a frame.
"""

from __future__ import annotations

import resource
import socket
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))  # python -I leaves it out: it is where bench/ is

from bench.harness.content import make_block, stamp
from bench.harness.receiving.order import Order
from bench.harness.units import MIB
from uringd.wire import HEADER_BYTES, Flag, FrameType, Header, crc32c, encode_header

CONTENT_BYTES = 64 * MIB
UPLOAD = 1


def main() -> None:
    """Prepare, connect, send, and print the CPU seconds that sending took."""
    order, address = Order.from_json(sys.argv[1]), sys.argv[2]
    setting = order.setting
    length = setting.slot_bytes
    count = order.total_bytes // length
    frames = _frames(length, min(count, max(1, CONTENT_BYTES // length)))
    checksums = [crc32c(frame[HEADER_BYTES:]) for frame in frames]
    raw = is_raw(order.way)
    with _connect(order, address) as connection:
        before = _cpu_s()
        for number in range(count):
            frame = frames[number % len(frames)]
            if raw:
                connection.sendall(frame[HEADER_BYTES:])
                continue
            flags = Flag.MORE if number < count - 1 else Flag.NONE
            crc = checksums[number % len(frames)]
            frame[:HEADER_BYTES] = encode_header(
                Header(FrameType.DATA, flags, 0, UPLOAD, number * length, length, crc)
            )
            connection.sendall(frame)
        print(_cpu_s() - before)


def is_raw(way: str) -> bool:
    """Whether a way wants bytes without headers."""
    return way == "bare"


def _frames(length: int, count: int) -> list[memoryview]:
    block = make_block(length)
    frames = [memoryview(bytearray(HEADER_BYTES) + block) for _ in range(count)]
    for number, frame in enumerate(frames):
        stamp(frame[HEADER_BYTES:], number)
    return frames


def _connect(order: Order, address: str) -> socket.socket:
    size = order.setting.buffer_bytes
    family = socket.AF_UNIX if order.setting.transport == "unix" else socket.AF_INET
    connection = socket.socket(family)
    if size:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    if family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, _, port = address.rpartition(":")
        connection.connect((host, int(port)))
    else:
        connection.connect(address)
    return connection


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
