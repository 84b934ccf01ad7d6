"""Load a server with everything at once for a long time, and watch what it holds.

    make soak [SECONDS=3600] [SEED=n]

Several clients do whatever comes next: files and streams of 1 byte to 24 MiB over TCP and the Unix
socket, in 1 to 4 lanes and through each kind of shared memory, many small files, uploads that are
left and gone on with, uploads that are aborted, questions. Every published byte is read back and
compared. The server's resident and pinned memory, descriptors and threads are sampled. What has to
hold, or the run ends with 1 and a sentence that says what did not:

- every published file is what was sent, and the server ends by SIGTERM with 0;
- resident memory grows by less than 1 MiB in an hour, once warm (told, but not judged, of runs
  below 10 minutes);
- at rest it has no more descriptors, pinned memory and threads than it had behind the warm-up,
  and no spool file.

A tenth of the time, 300 s at the most, is for the warm-up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click
import trio

from tests.crash.processes import started
from tests.soak.load import BrokenContentError, Load
from tests.soak.report import MIB, Report, draw, leaves
from tests.soak.watch import Sample, Watch, look
from uringd.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = 6
"""At once: the server always has something in every state, and two cores are busy."""

WARM_UP_SHARE, WARM_UP_S_MAX = 0.1, 300.0

REST_S_MAX = 60.0
"""How long a server without clients may take to let go of what it holds: kernel workers and idle
threads leave after 5 to 10 s."""

UNCHANGED_S_MAX = 15.0
"""At rest is who has not changed for so long, or for as long as the whole run is."""

REST_LOOK_S = 0.25
READY_S = 60.0
STOP_S = 60.0
PROGRESS_S = 60.0


class BrokenPromiseError(Exception):
    """The server did what it must not: the sentence says what."""


class Soak:
    """One run."""

    def __init__(self, directory: Path, report: Report, seconds: float) -> None:
        self._root = directory / "root"
        self._socket = directory / "socket"
        self._log = directory / "server.log"
        self._report = report
        self._seconds = seconds

    async def run(self) -> None:
        """Warm up, rest, load and watch, rest. Raises BrokenPromiseError and others in groups."""
        report = self._report
        warm_up_s = min(self._seconds * WARM_UP_SHARE, WARM_UP_S_MAX)
        async with self._server() as (process, tcp):
            load = Load(self._root, tcp, f"unix://{self._socket}", report.seed)
            await load.run(report.clients, warm_up_s)
            report.before = await self._rest(process.pid)
            watch = Watch(process.pid, lambda: load.published_bytes)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch.run, self._seconds - warm_up_s)
                    nursery.start_soon(self._tell, load)
                    await load.run(report.clients, self._seconds - warm_up_s)
                    nursery.cancel_scope.cancel()
            finally:
                report.samples = watch.samples
                report.deeds, report.published_bytes = dict(load.deeds), load.published_bytes
            report.after = await self._rest(process.pid, report.before)
            process.terminate()
            with trio.move_on_after(STOP_S):
                await process.wait()
            if process.returncode != 0:
                raise BrokenPromiseError(f"SIGTERM ended the server with {process.returncode}")
        if left := os.listdir(self._root / ".uringd" / "spool"):
            raise BrokenPromiseError(f"spool files are left over: {sorted(left)[:5]}")
        if "Traceback" in self._log.read_text(errors="replace"):
            raise BrokenPromiseError("the server's log has a traceback (--keep leaves it there)")

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[tuple[trio.Process, str]]:
        arguments = ["serve", "--root", str(self._root), "--listen", "tcp://127.0.0.1:0"]
        arguments += ["--listen", f"unix://{self._socket}"]
        with self._log.open("ab") as log:
            async with started(arguments, stdout=subprocess.PIPE, stderr=log) as process:
                assert process.stdout is not None
                said = b""
                with trio.move_on_after(READY_S):
                    while said.count(b"\n") < 2 and (piece := await process.stdout.receive_some()):
                        said += piece
                if said.count(b"\n") < 2:
                    raise BrokenPromiseError(f"the server did not start: see {self._log}")
                yield process, said.split()[1].decode()

    async def _rest(self, pid: int, wanted: Sample | None = None) -> Sample:
        """Wait until the server holds no more than `wanted`, or nothing changes any more."""
        deadline = trio.current_time() + REST_S_MAX
        calm_s = min(UNCHANGED_S_MAX, self._seconds)
        unchanged_since, last = trio.current_time(), look(pid)
        while trio.current_time() < deadline:
            await trio.sleep(REST_LOOK_S)
            now = look(pid)
            if (now.descriptors, now.threads) != (last.descriptors, last.threads):
                unchanged_since, last = trio.current_time(), now
            if wanted is None and trio.current_time() - unchanged_since > calm_s:
                break
            if wanted is not None and not _more(now, wanted):
                break
        return now

    async def _tell(self, load: Load) -> None:
        began = time.monotonic()
        while True:
            await trio.sleep(PROGRESS_S)
            minutes = (time.monotonic() - began) / 60
            done = f"{sum(load.deeds.values()):,} done, {load.published_bytes / MIB:,.0f} MiB"
            click.echo(f"{minutes:.0f} min: {done} published and read back", err=True)


def _more(now: Sample, then: Sample) -> bool:
    return (
        now.descriptors > then.descriptors
        or now.threads > then.threads
        or now.pinned_bytes > then.pinned_bytes
    )


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--seconds", default=3600.0, show_default=True, help="How long.")
@click.option("--clients", default=CLIENTS, show_default=True, help="At once.")
@click.option("--seed", type=int, help="Of an earlier run: the same deeds in another order.")
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="Where to.")
@click.option("--json", "into", type=Path, metavar="FILE", help="Every sample, for programs.")
@click.option("--plot", type=Path, metavar="FILE", help="A picture over time, .svg or .png.")
@click.option("--keep", is_flag=True, help="Leave everything there when a promise was broken.")
def main(
    seconds: float,
    clients: int,
    seed: int | None,
    directory: Path,
    into: Path | None,
    plot: Path | None,
    *,
    keep: bool,
) -> None:
    report = Report(seed if seed is not None else random.SystemRandom().randrange(1 << 32), clients)
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="uringd-soak-", dir=directory))
    click.echo(f"seed {report.seed}, in {directory}, for {seconds:.0f} s", err=True)
    try:
        trio.run(Soak(scratch, report, seconds).run)
    except* (BrokenPromiseError, BrokenContentError, ClientError, OSError) as group:
        report.broken += [f"{type(exc).__name__}: {exc}" for exc in leaves(group)]
    finally:
        if keep and report.broken:
            click.echo(f"all of it is in {scratch}", err=True)
        else:
            shutil.rmtree(scratch)
    report.seconds = time.monotonic() - began
    report.judge()
    click.echo(report.table())
    if into is not None:
        into.write_text(json.dumps(report.json()) + "\n")
    if plot is not None and report.samples:
        draw(report, plot)
    for sentence in report.broken:
        click.echo(f"broken: {sentence}", err=True)
    sys.exit(1 if report.broken else 0)


if __name__ == "__main__":
    main()
