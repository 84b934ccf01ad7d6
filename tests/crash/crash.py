"""Kill -9 the server, the client, both, and cut connections, at random moments, again and again.

    make crash [SECONDS=600] [ROUNDS=1000] [KILLS=n] [SEED=n] [WORKERS=n]

Several uploads at once (8 to 64 MiB, 1 and 4 lanes, some from standard input, at every level of
durability) run as `uringd put` through a relay to a `uringd serve`. In each round one thing is
done to them: a connection is cut at a random byte, a client or the server or both are killed. A
killed client is gone on with by `put --resume` or thrown away by `abort`; a killed server is
started again on the same root. With several workers one of them is killed as well, or all are
replaced, and the server has to go on by itself. What has to hold, or the run ends with 1 and a
sentence that says what did not:

- every upload ends published and identical to its source, or aborted and gone;
- whatever was acknowledged as durable, RESUME's answer has it, and nobody sends it again;
- bytes sent are at most 1.3 times the size, on average over the published uploads;
- in the end no spool file and no row of an upload is left, and no file that nobody asked for.

The seed decides sizes, contents, what is done and after how many bytes; what the machine makes of
it differs from run to run. No more rounds are begun when the time is up. With KILLS nothing is cut,
the run ends after so many SIGKILLs, and how much was sent again is told but not judged: each round
costs a process what it had not made durable. The directory has to be on a real disk: that is what
is tested.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click
import trio

from tests.crash.ledger import BrokenPromiseError, Ledger
from tests.crash.processes import Server
from tests.crash.relay import Relay
from tests.crash.tally import RATIO_MAX, Tally
from tests.crash.uploads import Surroundings, Upload

UPLOADS_AT_ONCE = 3
"""Enough that the server always has one in the middle, few enough for two cores."""
GAP_UPLOADS = 3
"""Mean of what goes past between two rounds, in uploads of the smallest size."""
GAP_S_MAX = 2.0
"""A round comes after that long even if nothing moves. Long, so that on a slow machine there are
fewer rounds, and not more of them for each byte: what is sent again would be theirs."""
JITTER_S = 0.03
"""The moment is not that of a piece that the relay read."""
CUT_S_MAX = 0.3
"""A connection on which too little moves is cut where it stands."""
DOWN_S_MAX = 0.3
"""How long a killed server stays away."""
FINISH_S = 120
"""What the last uploads may take once they are left in peace."""
PROGRESS_ROUNDS = 50
ROUNDS = 1000
SECONDS, KILLS_SECONDS = 600.0, 7200.0

WEIGHTS = {"cut": 50, "client": 25, "server": 15, "both": 10}
WORKERS_WEIGHTS = {"cut": 40, "client": 20, "server": 5, "both": 5, "worker": 25, "replace": 5}
"""Of a server of several workers. Whoever kills the server kills the supervisor."""
NO_KILLS = {"cut", "replace"}
SERVER_ARGUMENTS = ["--slot-bytes", str(256 << 10), "--slots", "64"]
"""Small slots: more frames, more moments."""
TABLES = ("uploads", "ranges", "commits")


class Run:
    """One run of the script."""

    def __init__(
        self,
        directory: Path,
        tally: Tally,
        rounds: int,
        seconds: float,
        kills: int,
        size_min_bytes: int,
        workers: int,
    ) -> None:
        self._root = directory / "root"
        self._tally = tally
        self._rounds = rounds
        self._seconds = seconds
        self._kills = kills or sys.maxsize
        self._gap_bytes = GAP_UPLOADS * size_min_bytes
        self._random = random.Random(f"{tally.seed}/rounds")
        ledger = Ledger()
        self._relay = Relay(ledger)
        self._log = directory / "server.log"
        arguments = [*SERVER_ARGUMENTS, "--workers", str(workers)]
        self._server = Server(self._relay, self._root, self._log, arguments)
        weights = WEIGHTS if workers == 1 else WORKERS_WEIGHTS
        self._cuts = not kills
        left_out = NO_KILLS if kills else set()
        self._weights = {kind: weights[kind] for kind in weights if kind not in left_out}
        sources = directory / "sources"
        sources.mkdir()
        self._around = Surroundings(sources, self._root, self._relay, ledger, tally, size_min_bytes)
        self._numbers = iter(range(1, sys.maxsize))
        self._enough = False

    async def run(self) -> None:
        """Do all rounds. Raises BrokenPromiseError, alone or in a group."""
        async with contextlib.aclosing(self._server), trio.open_nursery() as nursery:
            await nursery.start(self._relay.run)
            await self._server.start()
            async with trio.open_nursery() as uploads:
                for _ in range(UPLOADS_AT_ONCE):
                    uploads.start_soon(self._run_uploads)
                await self._torment()
                self._enough = True
                uploads.cancel_scope.deadline = trio.current_time() + FINISH_S
            if self._around.unfinished:
                names = ", ".join(sorted(self._around.unfinished))
                raise BrokenPromiseError(f"left in peace for {FINISH_S} s, unfinished: {names}")
            await self._server.stop()
            nursery.cancel_scope.cancel()
        self._check_nothing_is_left()
        if self._cuts and self._tally.too_much_was_sent:
            text = f"{self._tally.ratio_mean:.3f} times the size was sent on average"
            raise BrokenPromiseError(f"{text}, at most {RATIO_MAX} is promised")

    async def _run_uploads(self) -> None:
        while not self._enough:
            upload = Upload(self._around, next(self._numbers))
            self._around.unfinished.add(upload.name)
            await upload.bring_to_an_end()
            self._around.unfinished.remove(upload.name)

    async def _torment(self) -> None:
        deadline = trio.current_time() + self._seconds
        tally = self._tally
        while (
            tally.rounds < self._rounds
            and tally.kills < self._kills
            and trio.current_time() < deadline
        ):
            gap = self._random.expovariate(1 / self._gap_bytes)
            with trio.move_on_after(GAP_S_MAX):
                await self._relay.wait_carried(self._relay.bytes_carried + int(gap))
            await trio.sleep(self._random.random() * JITTER_S)
            [kind] = self._random.choices(list(self._weights), list(self._weights.values()))
            if await self._strike(kind):
                tally.kinds[kind] += 1
                if tally.rounds % PROGRESS_ROUNDS == 0:
                    done = dict(tally.uploads)
                    click.echo(f"round {tally.rounds}: {tally.kills} kills, {done}", err=True)

    async def _strike(self, kind: str) -> bool:
        """Do what a round does; False when there was nobody to do it to."""
        if kind == "cut":
            return await self._relay.cut_one(self._random, CUT_S_MAX)
        if kind in {"client", "both"}:
            running = sorted(self._around.running, key=lambda process: process.pid)
            if not running:
                return False
            self._random.choice(running).kill()
        if kind == "worker":
            return await self._server.kill_worker(self._random)
        if kind == "replace":
            self._server.replace_workers()
        if kind in {"server", "both"}:
            await self._server.kill()
            await trio.sleep(self._random.random() * DOWN_S_MAX)
            await self._server.start()
        return True

    def _check_nothing_is_left(self) -> None:
        if "Traceback" in self._log.read_text(errors="replace"):
            raise BrokenPromiseError("the server's log has a traceback (--keep leaves it there)")
        private = self._root / ".uringd"
        spool = os.listdir(private / "spool")
        if spool:
            raise BrokenPromiseError(f"spool files are left over: {sorted(spool)}")
        others = sorted(name for name in os.listdir(self._root) if name != private.name)
        if others:
            raise BrokenPromiseError(f"files are there that nobody asked for: {others}")
        with contextlib.closing(sqlite3.connect(private / "catalog.sqlite3")) as catalog:
            for table in TABLES:
                [count] = catalog.execute(f"SELECT count(*) FROM {table}").fetchone()
                if count:
                    raise BrokenPromiseError(f"{count} rows are left over in the table {table}")


def promise(group: BaseExceptionGroup[BrokenPromiseError]) -> str:
    """The first broken promise's sentence; what is broken after it may come of it."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)


def file_system_of(directory: Path) -> str:
    """The type of a directory's file system, as stat(1) has it."""
    command = ["stat", "-f", "-c", "%T", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--rounds", type=int, help="At most so many.  [1000, or what --kills takes]")
@click.option("--seconds", type=float, help="No round begins after that.  [600; --kills: 7200]")
@click.option("--kills", default=0, help="Cut nothing, and end after so many SIGKILLs.")
@click.option("--seed", type=int, help="Of an earlier run.  [random]")
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="Where to.")
@click.option("--smallest", default=8, show_default=True, help="Upload in MiB: up to 8 times it.")
@click.option("--workers", default=1, show_default=True, help="Processes of the server.")
@click.option("--keep", is_flag=True, help="Leave everything there when a promise was broken.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(
    rounds: int | None,
    seconds: float | None,
    kills: int,
    seed: int | None,
    directory: Path,
    smallest: int,
    workers: int,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    tally = Tally(seed if seed is not None else random.SystemRandom().randrange(1 << 32))
    if rounds is None:
        rounds = sys.maxsize if kills else ROUNDS
    if seconds is None:
        seconds = KILLS_SECONDS if kills else SECONDS
    kind = file_system_of(directory)
    if kind == "tmpfs":
        raise click.UsageError(f"{directory} is a tmpfs: give a --directory on a disk")
    click.echo(f"seed {tally.seed}, in {directory} ({kind})", err=True)
    begin = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="uringd-crash-", dir=directory))
    try:
        trio.run(Run(scratch, tally, rounds, seconds, kills, smallest << 20, workers).run)
    except* BrokenPromiseError as group:
        tally.broken = f"{promise(group)} (seed {tally.seed}, round {tally.rounds})"
    finally:
        if keep and tally.broken:
            click.echo(f"all of it is in {scratch}", err=True)
        else:
            shutil.rmtree(scratch)
    tally.seconds = time.monotonic() - begin
    click.echo(json.dumps(tally.json()) if as_json else tally.table())
    if tally.broken:
        click.echo(f"broken: {tally.broken}", err=True)
        sys.exit(1)
    if tally.kills < kills:
        click.echo(f"the time was up after {tally.kills} of {kills} kills", err=True)
    elif not kills and tally.rounds < rounds:
        click.echo(f"the time was up after {tally.rounds} of {rounds} rounds", err=True)


if __name__ == "__main__":
    main()
