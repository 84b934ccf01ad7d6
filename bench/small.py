"""Measure how many small files a second can be published, durably: `make bench-small`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.environment import describe
from bench.harness.figures import Spread
from bench.harness.measurement import CannotRunError
from bench.harness.quiet import fresh_directory, wait_for_rest
from bench.harness.rounds import rotated
from bench.harness.small_files import WAYS, Work

KIB = 1024
REST_TIMEOUT_S = 3.0
FILES_BYTES_MAX = 64 << 20
"""Written in one measurement at the most, so that all of it could stay in the page cache."""
REFERENCE = "plain loop"

METHOD = """\
Each way publishes the same files in a fresh directory of the same disk: content durable, then the
name, then the directory, as the receipt of an upload promises. The plain loop does one file at a
time; the others have `in flight` of them under way. uringd is the whole way, with a client and a
server process on this machine, over TCP with checksums. Rounds are interleaved: each way once, in
an order that moves on. Figures are medians of files a second; ratios are taken within a round.
"""

Rates = dict[tuple[int, int, str], list[float]]


def measure(
    directory: Path, sizes: list[int], depths: list[int], ways: list[str], rounds: int, count: int
) -> tuple[Rates, dict[str, str]]:
    """Run each way in each cell once a round; also returns what cannot be run, and why."""
    rates: Rates = {}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for size in sizes:
            for depth in depths:
                for way in rotated(ways, number):
                    if way in missing:
                        continue
                    files = max(depth, min(count, FILES_BYTES_MAX // size))
                    try:
                        rate = _measure(directory, way, size, depth, files)
                    except (CannotRunError, OSError) as exc:
                        missing[way] = str(exc)
                        continue
                    rates.setdefault((size, depth, way), []).append(rate)
    return rates, missing


def _measure(directory: Path, way: str, size: int, depth: int, count: int) -> float:
    work = Work(fresh_directory(directory / "small"), size, depth, count)
    wait_for_rest(directory, REST_TIMEOUT_S)
    began: list[float] = []
    WAYS[way](work, lambda: began.append(time.perf_counter()))
    seconds = time.perf_counter() - began[0]
    names = set(work.names())
    found = [path for path in work.directory.iterdir() if path.name in names]
    if len(found) != count or any(path.stat().st_size != size for path in found):
        raise CannotRunError(f"{way} did not publish what it was given")
    return count / seconds


def ratios(rates: Rates, size: int, depth: int, way: str) -> Spread | None:
    """Take a way's rates over the plain loop's, round by round."""
    ours, theirs = rates.get((size, depth, way)), rates.get((size, depth, REFERENCE))
    if not ours or not theirs:
        return None
    return Spread.of(mine / other for mine, other in zip(ours, theirs, strict=False))


def show(rates: Rates, missing: dict[str, str], rounds: int) -> None:
    """Print the method and a table."""
    print(METHOD)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=f"median of {rounds}")
    for column in ("KiB", "in flight", "", "files/s", "lowest", "highest", "over the plain loop"):
        table.add_column(column, justify="right" if column else "left")
    for size, depth, way in sorted(
        rates, key=lambda key: (key[0], key[1], list(WAYS).index(key[2]))
    ):
        spread = Spread.of(rates[size, depth, way])
        over = ratios(rates, size, depth, way)
        table.add_row(
            f"{size // KIB}",
            f"{depth}",
            way,
            *(f"{rate:,.0f}" for rate in (spread.median, spread.low, spread.high)),
            f"{over.median:.2f}" if over else "-",
        )
    Console().print(table)
    for way, reason in missing.items():
        print(f"{way}: left out, {reason}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--size", "sizes", type=click.IntRange(1, 256), multiple=True, help="In KiB.")
@click.option("--depth", "depths", type=click.IntRange(1, 128), multiple=True, help="In flight.")
@click.option("--way", "ways", type=click.Choice(list(WAYS)), multiple=True)
@click.option("--count", type=click.IntRange(1), default=4000, show_default=True, help="Files.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/tmp"),  # noqa: S108  # a directory of our own below it
    show_default=True,
    help="Where to write: the disk that is measured.",
)
def main(
    *,
    as_json: bool,
    rounds: int,
    sizes: tuple[int, ...],
    depths: tuple[int, ...],
    ways: tuple[str, ...],
    count: int,
    directory: Path,
) -> None:
    """Publish small files in several ways, and say how many a second each can do."""
    chosen = [size * KIB for size in sizes] or [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB]
    scratch = directory / "uringd-bench-small"
    scratch.mkdir()
    try:
        rates, missing = measure(
            scratch, chosen, list(depths) or [8, 32, 128], list(ways) or list(WAYS), rounds, count
        )
    finally:
        fresh_directory(scratch / "small").rmdir()
        scratch.rmdir()
    if not as_json:
        show(rates, missing, rounds)
        return
    rows = [
        {
            "size_bytes": size,
            "in_flight": depth,
            "way": way,
            "files_per_s": asdict(Spread.of(values)),
            "over_plain_loop": asdict(over) if (over := ratios(rates, size, depth, way)) else None,
        }
        for (size, depth, way), values in rates.items()
    ]
    result = {
        "environment": describe(directory),
        "method": METHOD.splitlines(),
        "settings": {"rounds": rounds, "count": count},
        "missing": missing,
        "rows": rows,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
