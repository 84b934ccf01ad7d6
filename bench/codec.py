"""Measure the codec of the protocol alone, without a socket or a disk: `make bench-codec`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.environment import describe
from bench.harness.figures import Spread
from bench.harness.rounds import rotated
from bench.harness.units import GIB, MIB
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    Connection,
    Data,
    Flag,
    FrameType,
    Header,
    Role,
    crc32c,
    decode_header,
    encode_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRAME_BYTES = MIB
CONTENT_BYTES = 64 * MIB
"""What is checksummed, chunk after chunk: more than caches hold, as what comes from a socket is."""
HEADERS = 256
"""Different ones, so that nothing is fast for being the same as the last time."""
GOAL_HEADERS = 150_000
GOAL_GIB = 20
ABOUT = ("date", "kernel", "cpu", "cpu_count", "load", "python", "commit")

METHOD = """\
A frame is a DATA frame of 1 MiB. Both sides of one connection run in one thread, after HELLO.
Sending: send_data_header, which checks state and fields and returns the 64 bytes.
Receiving: receive_data of those bytes, next_event, and payload_received for the payload, which goes
past the codec from the socket into the memory it is written from: the codec touches no byte of it.
With CRC32C, the sender and then the receiver compute the checksum of the payload, from 64 MiB of
memory in turn, and the receiver compares: each byte is read twice.
Headers: encode_header and decode_header alone, of 256 different DATA headers in turn.
Rates are by the CPU time of the process, which other load changes little; by the wall beside it.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A measured thing: its rates a second by CPU time and by the wall, and what was wanted."""

    title: str
    is_frames: bool
    goal: float
    rate: Spread
    wall_rate: Spread


class Codec:
    """The loops that are measured; each does `count` times what its row says."""

    def __init__(self, content_bytes: int) -> None:
        self.client, self.server = Connection(Role.CLIENT), Connection(Role.SERVER)
        self.content = memoryview(bytearray(range(256)) * (content_bytes // 256))
        self.headers = [
            Header(
                FrameType.DATA, Flag(at % 2 * 2), 0, 1 + at, at * MIB, FRAME_BYTES, at * 0x1010101
            )
            for at in range(HEADERS)
        ]
        self.encoded = [bytearray(encode_header(header)) for header in self.headers]
        hello = self.client.send_control(FrameType.HELLO, pb.Hello(), cookie=1)
        self.server.receive_data(hello)
        self.server.next_event()
        reply = pb.HelloReply(
            instance_id=bytes(16), chunk_bytes_max=FRAME_BYTES, alignment=1, credit=1, uploads_max=1
        )
        self.client.receive_data(self.server.send_control(FrameType.HELLO, reply, reply_to=1))
        self.client.next_event()

    def encode(self, count: int) -> None:
        """Encode headers."""
        headers = self.headers
        for at in range(count):
            encode_header(headers[at % HEADERS])

    def decode(self, count: int) -> None:
        """Decode headers."""
        encoded = self.encoded
        for at in range(count):
            decode_header(encoded[at % HEADERS])

    def send(self, count: int) -> None:
        """Make the headers of frames."""
        client = self.client
        for at in range(count):
            client.send_data_header(1, at * FRAME_BYTES, FRAME_BYTES, at, more=True)

    def receive(self, count: int) -> None:
        """Take frames; their payloads go past."""
        server, encoded = self.server, self.encoded
        for at in range(count):
            server.receive_data(encoded[at % HEADERS])
            server.next_event()
            server.payload_received(FRAME_BYTES)

    def both(self, count: int) -> None:
        """Send frames and take them."""
        client, server = self.client, self.server
        for at in range(count):
            frame = client.send_data_header(1, at * FRAME_BYTES, FRAME_BYTES, at, more=True)
            server.receive_data(frame)
            server.next_event()
            server.payload_received(FRAME_BYTES)

    def both_checked(self, count: int) -> None:
        """Send frames and take them, with the checksum of each computed and compared."""
        client, server, content = self.client, self.server, self.content
        for at in range(count):
            start = at * FRAME_BYTES % len(content)
            payload = content[start : start + FRAME_BYTES]
            offset = at * FRAME_BYTES
            frame = client.send_data_header(1, offset, FRAME_BYTES, crc32c(payload), more=True)
            server.receive_data(frame)
            event = server.next_event()
            server.payload_received(FRAME_BYTES)
            if not isinstance(event, Data) or event.crc32c != crc32c(payload):
                raise AssertionError("a frame arrived as something else")


LOOPS: dict[str, tuple[str, bool, float, int, Callable[[Codec, int], None]]] = {
    # name: title, whether it moves frames, the goal in headers or GiB a second, share of the count
    "encode": ("header, encoded", False, GOAL_HEADERS, 1, Codec.encode),
    "decode": ("header, decoded", False, GOAL_HEADERS, 1, Codec.decode),
    "send": ("frames, sending side", True, GOAL_GIB, 1, Codec.send),
    "receive": ("frames, receiving side", True, GOAL_GIB, 1, Codec.receive),
    "both": ("frames, both sides", True, GOAL_GIB, 1, Codec.both),
    "checked": ("frames, both with CRC32C", True, 0, 100, Codec.both_checked),
}


def measure(rounds: int, count: int) -> dict[str, Row]:
    """Run every loop once a round, in an order that moves on."""
    codec = Codec(min(CONTENT_BYTES, max(1, count // 100) * FRAME_BYTES))
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    wall_rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(rounds):
        for name in rotated(list(LOOPS), number):
            times = max(1, count // LOOPS[name][3])
            began, cpu_began = time.perf_counter(), time.process_time()
            LOOPS[name][4](codec, times)
            cpu_s, wall_s = time.process_time() - cpu_began, time.perf_counter() - began
            rates[name].append(times / max(cpu_s, 1e-9))
            wall_rates[name].append(times / wall_s)
    return {
        name: Row(title, is_frames, goal, Spread.of(rates[name]), Spread.of(wall_rates[name]))
        for name, (title, is_frames, goal, _, _) in LOOPS.items()
    }


def show(rows: Mapping[str, Row], rounds: int) -> None:
    """Print the method and a table."""
    print(METHOD)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=f"median of {rounds}")
    for column in ("", "a second", "GiB/s", "lowest", "highest", "by the wall", "goal"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows.values():
        gib = FRAME_BYTES / GIB
        goal = f"{row.goal:,.0f}{' GiB/s' if row.is_frames else ''}" if row.goal else "-"
        table.add_row(
            row.title,
            f"{row.rate.median:,.0f}",
            f"{row.rate.median * gib:.1f}" if row.is_frames else "-",
            *(f"{rate:,.0f}" for rate in (row.rate.low, row.rate.high, row.wall_rate.median)),
            goal,
        )
    Console().print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Headers or frames in each round; a hundredth of it where payloads are read.",
)
def main(*, as_json: bool, rounds: int, count: int) -> None:
    """Measure how many headers and 1 MiB frames a second the codec alone can do."""
    rows = measure(rounds, count)
    if not as_json:
        show(rows, rounds)
        return
    about = describe(Path(__file__).parent)
    result = {
        "environment": {name: about[name] for name in ABOUT},
        "method": METHOD.splitlines(),
        "settings": {"rounds": rounds, "count": count, "frame_bytes": FRAME_BYTES},
        "rows": {name: asdict(row) for name, row in rows.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
