"""Run the whole daemon in a simulation, seed after seed, and hold it against its promises.

    make simulate [SECONDS=60] [SEED=n]

Runs seeds from SEED on until the time is up; with SEED alone, that one. The daemon, its client and
the codec are the product's; the ring and the disk are `uringio.testing`'s; clock, network and
threads are simulated (see world.py, and the modules it names). The same seed and the same commit
give the same run, event for event. The first seed that breaks a promise is cut short and told with
the command that shows it again, and the exit code is 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click

from tests.simulation.plan import Limits
from tests.simulation.shrink import cut_short, run_seed
from tests.simulation.tally import Tally
from tests.simulation.world import BrokenPromiseError

PROGRESS_S = 10.0


@click.command()
@click.option("--seconds", type=float, help="Run seeds for so long.")
@click.option("--seed", type=int, help="The first seed, or without --seconds the only one.")
@click.option("--clients", type=int, default=Limits.clients, help="Clients at the most.")
@click.option("--disturbances", type=int, default=Limits.disturbances, help="Kills, cuts, ...")
@click.option("--faults", type=click.Choice(["yes", "no"]), default="yes")
@click.option("--network", type=click.Choice(["any", "calm"]), default="any")
def main(
    seconds: float | None,
    seed: int | None,
    clients: int,
    disturbances: int,
    faults: str,
    network: str,
) -> None:
    """Run it."""
    limits = Limits(clients, disturbances, faults == "yes", network == "calm")
    begun = told = time.monotonic()
    number = time.time_ns() % 1_000_000_000 if seed is None else seed
    first, tally = number, Tally()
    ends = begun + (60.0 if seconds is None and seed is None else seconds or 0.0)
    while True:
        try:
            tally.add(run_seed(number, limits).tally)
        except BrokenPromiseError as exc:
            click.echo(f"seed {number}: {cut_short(number, exc, limits)}", err=True)
            sys.exit(1)
        number, now = number + 1, time.monotonic()
        if now >= ends:
            break
        if now >= told + PROGRESS_S:
            told = now
            click.echo(
                f"{now - begun:.0f} s: {tally.seeds:,} seeds, {tally.operations:,} operations"
            )
    click.echo(f"seeds {first} to {number - 1}, {time.monotonic() - begun:.0f} s")
    click.echo(tally.table())


if __name__ == "__main__":
    main()
