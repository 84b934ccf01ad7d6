"""Measure ways to receive chunks from a socket into registered slots: `make bench-receive`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.daemon import PYTHON
from bench.harness.environment import describe
from bench.harness.figures import Spread
from bench.harness.measurement import CannotRunError
from bench.harness.options import directory_option, into_option
from bench.harness.quiet import fresh_directory
from bench.harness.receiving.order import SLOT_BYTES, Order, Received, Setting
from bench.harness.receiving.ways import WAYS, WRITING
from bench.harness.rounds import ask_child, rotated
from bench.harness.units import GIB, MIB, rounds_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.harness.receiving.order import Transport

    Found = dict[Setting, dict[str, list[Received]]]
    Plan = list[tuple[Setting, list[str]]]

CHILD = Path(__file__).parent / "harness/receiving/child.py"
YARDSTICK = "bare"
TRANSPORTS: tuple[Transport, ...] = ("tcp", "unix")
KIB = 1 << 10
SLOT_SIZES = (256 * KIB, 512 * KIB, MIB, 4 * MIB)
BUFFER_SIZES = (256 * KIB, MIB, 4 * MIB)

METHOD = """\
A process of its own sends frames of one slot each, as fast as the socket takes them: its content is
there before the clock starts (64 MiB, more than a core's caches hold) and its headers have their
checksums. The receiver is a new process each time, with the library's ring, reactor and slots
(32 MiB). Time and CPU count from the connection to the last chunk, written ones to the end of an
fsync: O_DIRECT, blocks reserved. Every way compares every chunk with its CRC32C.
  bare          recv_into 1 MiB of memory in a loop, blocking; no header, no checksum, no event loop
  service       what uringd does (service/uringd/receiver.py)
  trio-recv     trio: the header, then recv_into the slot
  trio-recvmsg  trio: recvmsg_into the slot and the next header
  ring-recv     io_uring: the header by trio, then one RECVMSG that waits for the whole payload
  ring-recvmsg  io_uring: one RECVMSG that waits for payload and next header, as MORE allows
  ring-linked   the same, WRITE_FIXED soft-linked behind it; the checksum is compared afterwards
  ring-...+coop by --way only: with a ring that takes COOP_TASKRUN instead of DEFER_TASKRUN
A ratio is taken within a round. CPU is the receiver's, with its io-wq workers. Sleeps are voluntary
context switches of its process.
"""
EPILOG = "\b\n" + METHOD.replace("\n\n", "\n")


def plan_of(transports: Sequence[Transport], only: Sequence[str], *, sizes: bool) -> Plan:
    """Say what is measured: settings, and the ways that are compared in each."""
    plan = []
    for transport, writes in product(transports, (False, True)):
        ways = [YARDSTICK, *(way for way in WAYS if writes or way not in WRITING)]
        plan.append((Setting(transport, writes), ways))
        if sizes:
            few = [YARDSTICK, "service"]
            plan += [(Setting(transport, writes, slot_bytes), few) for slot_bytes in SLOT_SIZES]
            plan += [(Setting(transport, writes, SLOT_BYTES, size), few) for size in BUFFER_SIZES]
    return [(setting, list(only) or ways) for setting, ways in plan]


def measure(
    plan: Plan, rounds: int, total_bytes: int, directory: Path
) -> tuple[Found, dict[str, str]]:
    """Run every way of every setting once a round; also say who could not run, and why."""
    found: Found = defaultdict(lambda: defaultdict(list))
    missing: dict[str, str] = {}
    for number in range(rounds):
        for setting, ways in plan:
            for way in rotated(ways, number):
                if way in missing:
                    continue
                order = Order(way, setting, total_bytes, str(fresh_directory(directory / "run")))
                try:
                    received = ask_child([*PYTHON, str(CHILD), order.to_json()], Received.from_json)
                except CannotRunError as exc:
                    missing[way] = str(exc)
                    continue
                found[setting][way].append(received)
                print(f"round {number + 1}: {setting.name}: {way}", file=sys.stderr)
    return found, missing


def show(found: Found, missing: dict[str, str], rounds: int, total_bytes: int) -> None:
    """Print the method and one table, ratios first."""
    print(METHOD)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=f"median of {rounds}")
    heads = ("", "x bare", "MiB/s", "CPU s/GiB", "sender", "calls", "sleeps")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", overflow="fold")
    gib = total_bytes / GIB
    for setting, ways in found.items():
        table.add_section()
        table.add_row(setting.name)
        chunks = total_bytes // setting.slot_bytes
        yardstick = ways.get(YARDSTICK, [])
        for way, runs in ways.items():
            pairs = zip(runs, yardstick, strict=False)
            ratio = Spread.of([other.seconds / run.seconds for run, other in pairs] or [0])
            rate = Spread.of(total_bytes / MIB / run.seconds for run in runs)
            cpu = Spread.of(run.cpu_s / gib for run in runs)
            table.add_row(
                f"  {way}",
                f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})",
                f"{rate.median:.0f} ({rate.low:.0f}-{rate.high:.0f})",
                f"{cpu.median:.2f} ({cpu.low:.2f}-{cpu.high:.2f})",
                f"{Spread.of(run.sender_cpu_s / gib for run in runs).median:.2f}",
                f"{Spread.of(run.calls / chunks for run in runs).median:.1f}",
                f"{Spread.of(run.sleeps / chunks for run in runs).median:.1f}",
            )
    Console(width=100).print(table)
    print(f"{rounds_text(rounds)}; calls and sleeps are for each chunk.")
    for way, reason in missing.items():
        print(f"{way} did not run: {reason}")


def save(into: Path, found: Found, settings: dict[str, object], directory: Path) -> None:
    """Write the environment, the method and every measurement as JSON."""
    runs = [
        {"setting": asdict(setting), "way": way, "runs": [asdict(run) for run in runs]}
        for setting, ways in found.items()
        for way, runs in ways.items()
    ]
    result = {
        "environment": describe(directory),
        "method": METHOD.splitlines(),
        "settings": settings,
        "found": runs,
    }
    into.write_text(json.dumps(result, indent=2) + "\n")


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.option("--quick", is_flag=True, help="A short look: 512 MiB, one round, slots of 2 MiB.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of all ways.  [default: 5]")
@click.option("--mib", type=click.IntRange(4), help="MiB in each measurement.  [default: 2048]")
@click.option(
    "--transport",
    "transports",
    type=click.Choice(TRANSPORTS),
    multiple=True,
    help="Measure over this one only.",
)
@click.option(
    "--way",
    "only",
    multiple=True,
    metavar="WAY",
    help=f"Measure this way only; may be repeated: {', '.join((YARDSTICK, *WAYS))}.",
)
@directory_option
@into_option
def main(
    *,
    quick: bool,
    rounds: int | None,
    mib: int | None,
    transports: tuple[Transport, ...],
    only: tuple[str, ...],
    directory: Path,
    into: Path | None,
) -> None:
    """Measure what it costs to receive chunks into slots, and to write them."""
    rounds = rounds or (1 if quick else 5)
    total_bytes = (mib or (512 if quick else 2048)) * MIB
    plan = plan_of(transports or TRANSPORTS, only, sizes=not quick)
    with tempfile.TemporaryDirectory(prefix="receive-", dir=directory) as scratch:
        found, missing = measure(plan, rounds, total_bytes, Path(scratch))
    show(found, missing, rounds, total_bytes)
    if into is not None:
        settings: dict[str, object] = {"rounds": rounds, "total_bytes": total_bytes}
        save(into, found, settings, directory)


if __name__ == "__main__":
    main()
