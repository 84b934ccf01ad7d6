"""Measure a uringd with many connections: speed, memory, patience: `make bench-connections`."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.daemon import PYTHON, Daemon, Transport
from bench.harness.environment import describe
from bench.harness.figures import Spread
from bench.harness.options import directory_option, into_option
from bench.harness.quiet import wait_for_rest
from bench.harness.rounds import rotated
from bench.harness.units import GIB, MIB, rounds_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Values = dict[str, list[float]]

CROWD = Path(__file__).parent / "harness/crowd.py"
BASE = 4
COUNTS = (BASE, 16, 64, 256)
IDLE = 10_000
QUICK_IDLE = 1_000
FAST = 8
SLOW_CHUNKS = 200
SLOW_BYTES = 64 << 10
DESCRIPTORS_APART = 256
WAIT_S = 300.0
REST_TIMEOUT_S = 2.0

METHOD = """\
A new uringd for each part of a round, and one process for all clients (bench/harness/crowd.py),
which speak by the product's codec; their content and its checksums are there before. Every upload
is published, which is durable. Throughput is all bytes over the time from the first CREATE to the
last receipt, with the same bytes in all for each number of connections; a ratio is taken within a
round.
  N connections  each an upload of its own, side by side
  idle           connections after HELLO that do nothing: what they add to the daemon's RSS, and
                 4 uploads beside them over 4 uploads without them
  slow client    one chunk of 64 KiB at a time: how long its acknowledgement takes, alone and beside
                 8 uploads as fast as the disk
"""
EPILOG = "\b\n" + METHOD


@contextlib.contextmanager
def crowd(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Start clients and wait until they are connected; they are ended on leaving."""
    command = [*PYTHON, str(CROWD), *map(str, words)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise click.ClickException("the clients did not get ready: see above")
            yield process
        finally:
            process.kill()


def run(process: subprocess.Popen[str]) -> dict[str, float]:
    """Give the word, and wait for what they found."""
    said, _ = process.communicate("go\n", timeout=WAIT_S)
    if process.returncode:
        raise click.ClickException(f"the clients ended with exit code {process.returncode}")
    found: dict[str, float] = json.loads(said)
    return found


class Bench:
    """One run of everything."""

    def __init__(
        self,
        directory: Path,
        transport: Transport,
        total_bytes: int,
        counts: tuple[int, ...],
        idle: int,
        rest_timeout_s: float,
    ) -> None:
        self.directory = directory
        self.transport = transport
        self.total_bytes = total_bytes
        self.counts = counts
        self.idle = idle
        self.rest_timeout_s = rest_timeout_s
        self.values: Values = defaultdict(list)

    def round(self, number: int) -> None:
        """Measure everything once."""
        config = f"connections_max = {self.idle + max(self.counts) + 64}\n"
        root = self.directory / "root"
        for part in rotated(["throughput", "idle", "slow"], number):
            shutil.rmtree(root, ignore_errors=True)
            with Daemon(root, [self.transport], config=config) as daemon:
                getattr(self, f"_{part}")(daemon, number)
                daemon.stop()
            print(f"round {number + 1}: {part}", file=sys.stderr)
        shutil.rmtree(root, ignore_errors=True)

    def _throughput(self, daemon: Daemon, number: int) -> None:
        for text in rotated(list(map(str, self.counts)), number):
            rate, cpu = self._fill(daemon, int(text))
            self.values[f"{text} connections"].append(rate)
            self.values[f"{text} connections, CPU"].append(cpu)

    def _idle(self, daemon: Daemon, number: int) -> None:
        self._fill(daemon, BASE)  # what is loaded and allocated once is there now
        before = daemon.rss_bytes()
        rates: dict[bool, tuple[float, float]] = {}
        for beside in (True, False) if number % 2 else (False, True):
            if not beside:
                rates[beside] = self._fill(daemon, BASE)
                continue
            with crowd("idle", daemon.urls[self.transport], self.idle):
                added = daemon.rss_bytes() - before
                rates[beside] = self._fill(daemon, BASE)
        self.values["idle, KiB"].append(added / self.idle / 1024)
        self.values["idle, alone"].append(rates[False][0])
        self.values["idle, beside"].append(rates[True][0])
        self.values["idle, CPU alone"].append(rates[False][1])
        self.values["idle, CPU beside"].append(rates[True][1])

    def _slow(self, daemon: Daemon, _: int) -> None:
        url = daemon.urls[self.transport]
        for name in ("alone", "beside"):
            with contextlib.ExitStack() as stack:
                if name == "beside":
                    busy = stack.enter_context(crowd("fill", url, FAST, self.total_bytes // 2))
                    assert busy.stdin is not None
                    busy.stdin.write("go\n")
                    busy.stdin.flush()
                slow = stack.enter_context(crowd("slow", url, SLOW_CHUNKS, SLOW_BYTES))
                found = run(slow)
            shutil.rmtree(self.directory / "root/slow", ignore_errors=True)
            (self.directory / "root/slow").unlink(missing_ok=True)
            for which, seconds in found.items():
                self.values[f"slow, {which.removesuffix('_s')} {name}"].append(seconds * 1000)

    def _fill(self, daemon: Daemon, count: int) -> tuple[float, float]:
        """Upload; the result is MiB/s and the daemon's CPU seconds per GiB."""
        wait_for_rest(self.directory, self.rest_timeout_s)
        url, each_bytes = daemon.urls[self.transport], self.total_bytes // count
        with crowd("fill", url, count, each_bytes) as clients:
            before = sum(daemon.cpu_s())
            found = run(clients)
            cpu_s = sum(daemon.cpu_s()) - before
        for path in (self.directory / "root").iterdir():
            if path.is_file():
                path.unlink()
        return self.total_bytes / MIB / found["seconds"], cpu_s / (self.total_bytes / GIB)


def ratio(values: Values, name: str, over: str) -> Spread:
    """Take a ratio round by round."""
    return Spread.of(a / b for a, b in zip(values[name], values[over], strict=True))


def show(bench: Bench, rounds: int) -> None:
    """Print the method and one table, ratios first."""
    values = bench.values
    print(METHOD)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=f"median of {rounds}")
    for head in ("", "ratio", "value", "server CPU s/GiB"):
        table.add_column(head, justify="right" if head else "left")
    for count in bench.counts:
        name = f"{count} connections"
        table.add_row(
            name,
            f"{text(ratio(values, name, f'{BASE} connections'), 2)} x {BASE}",
            f"{text(Spread.of(values[name]), 0)} MiB/s",
            text(Spread.of(values[f"{name}, CPU"]), 2),
        )
    table.add_row(
        f"{BASE} beside {bench.idle:,} idle",
        f"{text(ratio(values, 'idle, beside', 'idle, alone'), 2)} x alone",
        f"{text(Spread.of(values['idle, beside']), 0)} MiB/s",
        text(Spread.of(values["idle, CPU beside"]), 2),
    )
    table.add_row(
        "an idle connection", "", f"{text(Spread.of(values['idle, KiB']), 1)} KiB RSS", ""
    )
    for which in ("p50", "p99"):
        table.add_row(
            f"slow client's chunk, {which}",
            f"{text(ratio(values, f'slow, {which} beside', f'slow, {which} alone'), 1)} x alone",
            f"{text(Spread.of(values[f'slow, {which} beside']), 2)} ms",
            "",
        )
    Console(width=100).print(table)
    print(
        f"{rounds_text(rounds)}, {bench.total_bytes / MIB:,.0f} MiB each, over {bench.transport}."
    )


def text(spread: Spread, digits: int) -> str:
    """Say a median with its lowest and highest value."""
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}-{spread.high:.{digits}f})"


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.option("--quick", is_flag=True, help="A short look: one round, 512 MiB, 1,000 idle.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of everything.  [default: 5]")
@click.option(
    "--mib", type=click.IntRange(8), help="MiB in all for each measurement.  [default: 2048]"
)
@click.option("--idle", type=click.IntRange(1), help=f"Idle connections.  [default: {IDLE:,}]")
@click.option(
    "--rest",
    "rest_timeout_s",
    type=click.FloatRange(0),
    default=REST_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait before each measurement for the disk to do nothing.",
)
@click.option("--transport", type=click.Choice(["tcp", "unix"]), default="unix", show_default=True)
@directory_option
@into_option
def main(
    *,
    quick: bool,
    rounds: int | None,
    mib: int | None,
    idle: int | None,
    rest_timeout_s: float,
    transport: Transport,
    directory: Path,
    into: Path | None,
) -> None:
    """Measure what many connections do to a uringd, and to each other."""
    rounds = rounds or (1 if quick else 5)
    total_bytes = (mib or (512 if quick else 2048)) * MIB
    idle = min(idle or (QUICK_IDLE if quick else IDLE), _descriptors() - DESCRIPTORS_APART)
    with tempfile.TemporaryDirectory(prefix="connections-", dir=directory) as scratch:
        bench = Bench(Path(scratch), transport, total_bytes, COUNTS, idle, rest_timeout_s)
        for number in range(rounds):
            bench.round(number)
    show(bench, rounds)
    if into is not None:
        facts = {"rounds": rounds, "total_bytes": total_bytes, "idle": idle, "transport": transport}
        result = {
            "environment": describe(directory),
            "method": METHOD.splitlines(),
            "settings": facts,
            "values": bench.values,
        }
        into.write_text(json.dumps(result, indent=2) + "\n")


def _descriptors() -> int:
    """Raise the limit of descriptors as far as it goes; the result is that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return IDLE * 4 if hard == resource.RLIM_INFINITY else hard


if __name__ == "__main__":
    main()
