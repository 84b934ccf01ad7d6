"""Run the n-th operation loop of the daemon, all of it, and say how much that was.

    make nth [KIND="ring FSYNC"]

The tests of the suite do a part of it (one way in four). The first run that breaks a promise
ends it with exit code 1, and says which.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click

from tests.nth.enumeration import injections, run, undisturbed
from tests.nth.errors import TABLE
from tests.simulation.world import BrokenPromiseError


@click.command(help=(__doc__ or "").strip().splitlines()[0])
@click.option("--kind", type=click.Choice(list(TABLE)), help="Only this kind of operation.")
def main(kind: str | None) -> None:
    """Run it."""
    total, started = 0, time.monotonic()
    for each in [kind] if kind else TABLE:
        count = 0
        for injection in injections(each):
            try:
                run(injection)
            except BrokenPromiseError as exc:
                click.echo(f"{injection}: {exc}")
                raise SystemExit(1) from exc
            count += 1
        click.echo(f"{each:<20} {undisturbed().counts[each]:>4} operations {count:>6,} runs")
        total += count
    click.echo(f"{total:,} runs in {time.monotonic() - started:.0f} s, every promise kept")


if __name__ == "__main__":
    main()
