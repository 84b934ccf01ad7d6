"""Cut the power at every flush, again and again, and look at what is left.

    make powercut [SECONDS=600] [FS=ext4|xfs|btrfs] [SEED=n] [IMAGES=10000]

A file system on a disk that logs every write and flush (FUSE and a loop device) is worked on by a
`uringd serve` and by the library: uploads at every level with checkpoints, SYNCs, lanes, aborts,
groups of small files, a SIGKILL, a restart, resumed uploads. Then every state that a power cut can
have left is built again: all that was flushed, and of what was not nothing, all, or parts by
chance. Each is mounted, which replays the file system's journal, the server is started on it, and
what is there is held against what was acknowledged when. What has to hold, or the run ends with 1:

- what was acknowledged as published is under its name, or something newer of that name is;
- what was acknowledged as durable can be gone on with, or is published, every byte of it;
- no file below ROOT is torn or short, at no level above "written", and none is there unasked for;
- the file system mounts and the server starts.

The seed decides names, sizes, contents, and what is kept of unflushed writes; which writes there
were differs from run to run. With --keep the recording that broke a promise is left there. Needs
root, /dev/fuse and loop devices.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click

from tests.disks.cut_disks import STATES, mounted_states
from tests.disks.mounted import MKFS, LackingError
from tests.powercut.checking import check
from tests.powercut.recording import FLAG, SERVE, Recording, RecordingError, record
from tests.powercut.tally import Tally
from tests.powercut.workload import SERVED

PROGRESS_S = 10.0
VERIFY_EVERY = 250
"""Images from one `uringd verify` to the next: it is a process, and takes as long as 20 images."""
VERIFY_S = 60


@dataclass(frozen=True)
class Plan:
    """How much is to be done, and to which server."""

    recordings: int
    images: int
    seconds: float
    states: int
    every: int
    serve: tuple[str, ...]


class Run:
    """One run of the script."""

    def __init__(self, directory: Path, tally: Tally, plan: Plan) -> None:
        self._directory = directory
        self._tally = tally
        self._plan = plan
        self._begun = self._told = time.monotonic()

    def run(self) -> None:
        """Record and cut until there is enough, or a promise is broken."""
        while not self._is_over() and self._tally.recordings < self._plan.recordings:
            directory = self._directory / f"recording-{self._tally.recordings}"
            directory.mkdir()
            begun = time.monotonic()
            seed = self._tally.seed + self._tally.recordings
            recording = record(directory, self._tally.kind, seed, self._plan.serve)
            self._tally.recordings += 1
            self._tally.recording_s += time.monotonic() - begun
            try:
                self._cut(recording, seed)
            except OSError as exc:
                tally = self._tally
                tally.broken += 1
                tally.first_broken = f"recording {seed}, image {tally.images + 1}: {exc}"
            if not self._tally.broken:
                shutil.rmtree(directory)

    def _cut(self, recording: Recording, seed: int) -> None:
        tally, point = self._tally, recording.disk.point
        states = mounted_states(
            recording.disk,
            recording.began,
            recording.ended,
            states=self._plan.states,
            every=self._plan.every,
            seed=seed,
        )
        with closing(states):
            for cut in states:
                tally.images += 1
                tally.flushes += cut.state == 0
                faults = check(point, recording.history, cut, tally)
                if tally.images % VERIFY_EVERY == 0:
                    faults += verify(point / SERVED, recording)
                    tally.verified += 1
                if faults:
                    tally.broken += 1
                    where = f"recording {seed}, flush {cut.flush}, state {cut.state}"
                    tally.first_broken = f"{where}: {'; '.join(faults)}"
                self._tell()
                if self._is_over():
                    break

    def _is_over(self) -> bool:
        self._tally.seconds = time.monotonic() - self._begun
        late = self._tally.seconds >= self._plan.seconds
        return late or self._tally.images >= self._plan.images or self._tally.broken > 0

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._told + PROGRESS_S:
            self._told = now
            tally = self._tally
            click.echo(
                f"{now - self._begun:.0f} s: {tally.images:,} images of {tally.recordings} "
                f"recordings, {tally.broken} broken",
                err=True,
            )


def verify(root: Path, recording: Recording) -> list[str]:
    """Have `uringd verify` say which files are not what their receipts say."""
    done = subprocess.run(
        [sys.executable, FLAG, "-m", "uringd", "verify", str(root), "--all", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=VERIFY_S,
    )
    faults = [] if done.returncode in {0, 5} else [f"verify said {done.stderr.strip()}"]
    for line in done.stdout.splitlines():
        finding = json.loads(line)
        versions = recording.history.files.get(f"{SERVED}/{finding.get('name')}", [])
        if finding.get("outcome") in {"corrupt", "unreadable"} and any(
            version.level != "written" for version in versions
        ):
            faults.append(f"verify says {line}")
    return faults


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--kind", type=click.Choice(list(MKFS)), default="ext4", show_default=True)
@click.option("--recordings", default=1_000_000, show_default=True, help="At most so many.")
@click.option("--images", default=1_000_000, show_default=True, help="At most so many.")
@click.option("--seconds", default=600.0, show_default=True, help="No image is begun after that.")
@click.option("--seed", type=int, help="Of an earlier run.  [random]")
@click.option("--states", default=STATES, show_default=True, help="Images of each flush.")
@click.option("--every", default=1, show_default=True, help="Cut at every n-th flush only.")
@click.option("--server", type=Path, help="Script that is run in place of uringd.")
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="Where to.")
@click.option("--keep", is_flag=True, help="Leave the recording there when a promise was broken.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(
    kind: str,
    seed: int | None,
    server: Path | None,
    directory: Path,
    *,
    keep: bool,
    as_json: bool,
    **amounts: Any,
) -> None:
    tally = Tally(kind, seed if seed is not None else random.SystemRandom().randrange(1 << 32))
    click.echo(f"{kind}, seed {tally.seed}", err=True)
    scratch = Path(tempfile.mkdtemp(prefix="uringd-powercut-", dir=directory))
    serve = SERVE if server is None else (sys.executable, FLAG, str(server), "serve")
    if server is not None:
        serve += ("--backend", "threads")
    try:
        Run(scratch, tally, Plan(**amounts, serve=serve)).run()
    except LackingError as exc:
        raise click.UsageError(str(exc)) from exc
    except RecordingError as exc:
        tally.broken, tally.first_broken = tally.broken + 1, str(exc)
    finally:
        if keep and tally.broken:
            click.echo(f"all of it is in {scratch}", err=True)
        else:
            shutil.rmtree(scratch)
    click.echo(json.dumps(tally.json()) if as_json else tally.table())
    if tally.broken:
        click.echo(f"broken: {tally.first_broken}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
