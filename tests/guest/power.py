"""Cut the power of a guest while it takes uploads, again and again, and look at its disk.

    make power-cuts [CUTS=100] [KERNEL=6.1] [FS=ext4] [SEED=n]

A guest under qemu serves a file system on its own disk. Clients outside fill it: long files in many
chunks with SYNCs, over one and two connections, left and gone on with; short ones, and many small
ones; at every level of durability, past the page cache and, in every other life, through it. At a
random moment qemu is killed (machine.py says what kind of cut that is). Then the disk is mounted
here, so that its journal is replayed, a server is started on it, and every acknowledgement that a
client got is held against what is there. What has to hold, or the run ends with 1 and a sentence
that says what did not:

- what was acknowledged as durable or published is there, under its name, byte for byte, and its
  COMMIT is answered with the Receipt that it had;
- whatever was called durable of an unfinished upload is on the disk, the next server has it, and
  goes on from there to the whole file (the report says how many cuts met one);
- no file is visible that is torn, short, uncommitted, or of nobody;
- until the cut the server refuses nobody.

With --forgetful the guest's server forgets its fsyncs, and such a run has to end with 1.
The seed decides contents, sizes and moments; what the guest makes of them differs from run to run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click
import trio

from tests.crash.ledger import BrokenPromiseError
from tests.guest.build import CannotBuildError
from tests.guest.campaign import MAKE, Campaign, Plan
from tests.guest.machine import GuestError
from tests.soak.report import leaves


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--cuts", default=100, show_default=True, help="At most so many.")
@click.option("--seconds", default=3600.0, show_default=True, help="None begins after that.")
@click.option("--kernel", "series", default="6.1", show_default=True, help="A series of Debian's.")
@click.option("--fs", type=click.Choice(list(MAKE)), default="ext4", show_default=True)
@click.option("--seed", type=int, help="Of an earlier run.  [random]")
@click.option("--forgetful", is_flag=True, help="Forget the fsyncs: it has to be found out.")
@click.option("--before", default="", help="Shell to run before each cut; it may wait.")
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="For the disk.")
@click.option("--keep", is_flag=True, help="Leave the disk there when a promise was broken.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(
    cuts: int,
    seconds: float,
    series: str,
    fs: str,
    seed: int | None,
    before: str,
    directory: Path,
    *,
    forgetful: bool,
    keep: bool,
    as_json: bool,
) -> None:
    if os.geteuid():
        raise click.UsageError("disks are mounted: run this as root")
    seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
    click.echo(f"seed {seed}, kernel {series}, {fs}", err=True)
    scratch = Path(tempfile.mkdtemp(prefix="uringd-power-", dir=directory))
    broken: list[str] = []
    began = time.monotonic()
    try:
        campaign = Campaign(scratch, Plan(series, fs, seed, cuts, seconds, forgetful, before))
    except CannotBuildError as exc:
        shutil.rmtree(scratch)
        raise click.ClickException(str(exc)) from exc
    try:
        trio.run(campaign.run)
    except* (BrokenPromiseError, GuestError, OSError, subprocess.CalledProcessError) as group:
        broken = [f"{type(exc).__name__}: {exc}" for exc in leaves(group)]
    finally:
        if keep and broken:
            click.echo(f"all of it is in {scratch}", err=True)
        else:
            shutil.rmtree(scratch)
    said = {
        "seed": seed,
        "kernel": series,
        "file_system": fs,
        "cuts": campaign.cuts,
        "cuts_of_buffered_writes": campaign.buffered,
        "acknowledged": dict(sorted(campaign.load.counts.items())),
        "found": dict(sorted(campaign.oracle.counts.items())),
        "seconds": round(time.monotonic() - began, 1),
        "broken": broken,
    }
    if as_json:
        click.echo(json.dumps(said))
    else:
        for name, value in said.items():
            click.echo(f"{name.replace('_', ' '):<22} {value}")
    for sentence in broken:
        click.echo(f"broken: {sentence}", err=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
