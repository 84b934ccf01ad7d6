"""Run the whole daemon in a simulation, seed after seed, and hold it against its promises.

    make simulate [SECONDS=60] [SEEDS=n] [SEED=first] [JOBS=2] [JSON=file]
    make simulate SEED=n

Runs SEEDS seeds from SEED on by JOBS processes, or as many as SECONDS allow; with SEED alone, that
one. The daemon, its client and the codec are the product's; the ring and the disk are
`uringio.testing`'s; clock, network and threads are simulated (see world.py, and the modules it
names). The same seed and the same commit give the same run, event for event.

A seed that breaks a promise is cut short and told with the command that shows it again; the exit
code is 1 then. With JSON everything is recorded in a file, and the next run goes on behind its last
seed. An interrupt (Ctrl-C) ends it with what was counted by then.
"""

from __future__ import annotations

import math
import sys
import time
from itertools import count, takewhile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click

from tests.simulation.campaign import (
    BATCH_SEEDS,
    Failure,
    StuckBatchError,
    run_batch,
    run_batches,
)
from tests.simulation.plan import Limits
from tests.simulation.record import Record

PROGRESS_S = 10.0
SECONDS_DEFAULT = 60.0
JOBS_MAX = 256

FAILURES_MAX = 10
"""A fault that so many seeds show is one fault: there is no more to learn from others."""


@click.command(help=(__doc__ or "").strip().splitlines()[0])
@click.option("--seconds", type=float, help="Run seeds for so long.  [default: 60]")
@click.option("--seeds", type=click.IntRange(1), help="Run so many seeds.")
@click.option("--seed", type=click.IntRange(0), help="The first seed; alone, the only one.")
@click.option("--jobs", type=click.IntRange(1, JOBS_MAX), default=1, help="Processes.")
@click.option("--json", "into", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--clients", type=int, default=Limits.clients, help="Clients at the most.")
@click.option("--disturbances", type=int, default=Limits.disturbances, help="Kills, cuts, ...")
@click.option("--faults", type=click.Choice(["yes", "no"]), default="yes")
@click.option("--network", type=click.Choice(["any", "calm"]), default="any")
def main(
    seconds: float | None,
    seeds: int | None,
    seed: int | None,
    jobs: int,
    into: Path | None,
    clients: int,
    disturbances: int,
    faults: str,
    network: str,
) -> None:
    """Run it."""
    limits = Limits(clients, disturbances, faults == "yes", network == "calm")
    if seed is not None and seconds is None and seeds is None:
        batch = run_batch(range(seed, seed + 1), limits)
        _tell(batch.failures)
        click.echo(batch.tally.table())
        sys.exit(bool(batch.failures))
    record = Record(time.time_ns() % 1_000_000_000 if seed is None else seed, into)
    if seed not in {None, record.first}:
        text = f"{into} has the seeds from {record.first} on: name another file for others"
        raise click.UsageError(text)
    if into is not None and limits != Limits():
        raise click.UsageError("a record is of whole seeds: leave --json out")
    if seeds is None and seconds is None:
        seconds = SECONDS_DEFAULT
    failed = _run(record, seeds, seconds, jobs, limits)
    click.echo(f"seeds {record.first} to {record.next - 1}")
    click.echo(record.tally.table())
    sys.exit(failed)


def _run(
    record: Record, seeds: int | None, seconds: float | None, jobs: int, limits: Limits
) -> bool:
    """Run what is left of the seeds, within the seconds; whether one failed."""
    first, began = record.next, time.monotonic()
    end = None if seeds is None else max(first, record.first + seeds)
    starts = count(first, BATCH_SEEDS) if end is None else range(first, end, BATCH_SEEDS)
    in_time = takewhile(lambda _: seconds is None or time.monotonic() < began + seconds, starts)
    batches = (range(at, at + BATCH_SEEDS if end is None else min(at + BATCH_SEEDS, end))
               for at in in_time)  # fmt: skip
    failures, told = 0, -math.inf
    try:
        for batch in run_batches(batches, jobs, limits):
            record.add(batch)
            _tell(batch.failures)
            failures += len(batch.failures)
            if failures >= FAILURES_MAX:
                break
            now = time.monotonic()
            if now >= told + PROGRESS_S:
                told = now
                record.save()
                click.echo(_progress(record.next - first, now - began, end and end - record.next))
    except KeyboardInterrupt:
        click.echo("interrupted")
    except StuckBatchError as exc:
        raise click.ClickException(str(exc)) from exc
    finally:
        record.save()
    return failures > 0


def _progress(done: int, seconds: float, left: int | None) -> str:
    rate = done / seconds
    text = f"{seconds:.0f} s: {done:,} seeds, {rate:.1f} a second"
    return text if left is None else f"{text}, {left:,} left: {left / rate / 60:.0f} min"


def _tell(failures: list[Failure]) -> None:
    for failure in failures:
        click.echo(f"seed {failure.seed}: {failure.what}", err=True)


if __name__ == "__main__":
    main()
