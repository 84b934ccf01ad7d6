"""Cut the power of a guest while it takes uploads, again and again, and look at its disk.

    make power-cuts [CUTS=100] [KERNEL=6.1] [FS=ext4] [SEED=n]

A guest under qemu serves a file system on its own disk. Clients outside fill it: files with a sync
in their middle, streams, many small files, at every level of durability. At a random moment qemu
is killed. Then the disk is mounted here, so that its journal is replayed, a server is started on
it, and every acknowledgement that a client got is held against what is there. What has to hold, or
the run ends with 1 and a sentence that says what did not:

- what was acknowledged as durable or published is there, under its name, byte for byte;
- whatever a sync answered as durable, the next server has it, and goes on from there;
- no file is visible that is torn, short, or of nobody.

The seed decides contents, sizes and moments; what the guest makes of them differs from run to run.
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
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click
import trio

from tests.crash.ledger import BrokenPromiseError
from tests.crash.processes import started
from tests.guest.build import CannotBuildError, image
from tests.guest.machine import GuestError, Machine, running, save
from tests.guest.oracle import Attempt, Oracle
from tests.soak.report import leaves
from uringd.client import connect
from uringd.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from uringd.client import Client, PutResult

PORT = 7433
SERVER_OPTIONS = "--insecure --slot-bytes 65536 --slots 64"
"""Short chunks, so that a SYNC in the middle of a file makes most of it durable."""
DISK_BYTES = 1 << 30
CLIENTS = 3
CONTENT_BYTES = 16 << 20
LARGE_BYTES_MAX = 6 << 20
SMALL_BYTES_MAX = 32 << 10
SMALL_COUNT_MAX = 24
LEVELS = ("published", "published", "durable", "written")
LOAD_S = (0.5, 8.0)
"""From the first connection to the cut: the guest publishes a few files a second."""
SERVE_S = 120.0
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs",),
}


class Campaign:
    """All rounds on one disk."""

    def __init__(self, scratch: Path, series: str, file_system: str, seed: int) -> None:
        self._kernel, self._initramfs = image(series)
        self._disk = scratch / "disk.img"
        self._state = scratch / "state"
        self._mount_point = scratch / "mounted"
        self._mount_point.mkdir()
        self._file_system = file_system
        self._chance = random.Random(seed)
        self._content = memoryview(self._chance.randbytes(CONTENT_BYTES))
        self._numbers = 0
        self.oracle = Oracle()
        self.acknowledged: Counter[str] = Counter()
        self.cuts = 0

    async def run(self, cuts: int, seconds: float) -> None:
        """Cut so many times, or until the time is up. Raises BrokenPromiseError."""
        with self._disk.open("wb") as disk:
            disk.truncate(DISK_BYTES)
        make = [*MAKE[self._file_system], str(self._disk)]
        await trio.run_process(make, capture_stdout=True, capture_stderr=True)
        click.echo("booting the guest once", err=True)
        await save(self._kernel, self._initramfs, self._disk, PORT, self._state)
        deadline = time.monotonic() + seconds
        while self.cuts < cuts and time.monotonic() < deadline:
            await self._round()
            self.cuts += 1
            if self.cuts % 10 == 0:
                click.echo(f"{self.cuts} cuts: {dict(self.acknowledged)}", err=True)

    async def _round(self) -> None:
        where = (self._kernel, self._initramfs, self._disk, PORT, self._state)
        async with running(*where) as machine:
            await self._serve(machine)
            url = f"tcp://127.0.0.1:{machine.port}"
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    chance = random.Random(self._chance.random())
                    nursery.start_soon(self._upload_on, url, chance)
                await trio.sleep(self._chance.uniform(*LOAD_S))
                await machine.cut()
                nursery.cancel_scope.cancel()
        with self._mounted():
            async with self._server() as url:
                await self.oracle.check(self._mount_point / "root", url)

    async def _serve(self, machine: Machine) -> None:
        serve = f"python3 -m uringd serve --root /data/root --listen tcp://0.0.0.0:{PORT}"
        await machine.run(f"mount -t {self._file_system} /dev/vda /data && mkdir -p /data/root")
        await machine.run(f"({serve} {SERVER_OPTIONS} >/tmp/log 2>&1 &)")
        wait = "for i in $(seq 600); do grep -q ^listening /tmp/log && break; sleep 0.1; done"
        await machine.run(f"{wait}; grep -q ^listening /tmp/log || cat /tmp/log", SERVE_S)

    async def _upload_on(self, url: str, chance: random.Random) -> None:
        """Upload until the guest is gone."""
        with contextlib.suppress(ClientError):
            async with connect(url, retry_s=0) as client:
                while True:
                    if chance.random() < 1 / 3:
                        await self._small(client, chance)
                    else:
                        await self._large(client, chance)

    async def _large(self, client: Client, chance: random.Random) -> None:
        attempt = self._attempt(chance, LARGE_BYTES_MAX, chance.choice(LEVELS))
        content = attempt.content
        size = len(content) if chance.random() < 1 / 2 else None
        async with client.upload(attempt.name, size, durability=attempt.level) as upload:
            upload.keep()
            attempt.upload_id = upload.id
            half = chance.randrange(len(content) + 1)
            await upload.write(content[:half])
            if chance.random() < 1 / 2:
                attempt.durable = await upload.sync()
                self.acknowledged["syncs"] += 1
            await upload.write(content[half:])
            await upload.commit()
            attempt.receipt = True
            self.acknowledged[attempt.level] += 1

    async def _small(self, client: Client, chance: random.Random) -> None:
        count = chance.randrange(1, SMALL_COUNT_MAX)
        attempts = [self._attempt(chance, SMALL_BYTES_MAX, "published") for _ in range(count)]

        def done(result: PutResult) -> None:
            if result.error is None:
                self.oracle.attempts[result.name].receipt = True
                self.acknowledged["small"] += 1

        await client.put_many([(each.name, each.content) for each in attempts], done)

    def _attempt(self, chance: random.Random, longest: int, level: str) -> Attempt:
        length = int(longest ** chance.random())
        start = chance.randrange(CONTENT_BYTES - length)
        self._numbers += 1
        attempt = Attempt(f"{self._numbers:08}", self._content[start : start + length], level)
        self.oracle.attempts[attempt.name] = attempt
        return attempt

    @contextlib.contextmanager
    def _mounted(self) -> Iterator[None]:
        disk, there = str(self._disk), str(self._mount_point)
        mount = ["mount", "-o", "loop", "-t", self._file_system, disk, there]
        subprocess.run(mount, check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", there], check=True)

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[str]:
        root, socket = self._mount_point / "root", self._state.with_suffix(".sock")
        root.mkdir(exist_ok=True)
        arguments = ["serve", "--root", str(root), "--listen", f"unix://{socket}"]
        log = self._state.with_suffix(".log").open("ab")
        with log:
            async with started(arguments, stdout=subprocess.PIPE, stderr=log) as process:
                assert process.stdout is not None
                with trio.fail_after(SERVE_S):
                    if not await process.stdout.receive_some():
                        raise BrokenPromiseError("no server starts on the disk after the cut")
                yield f"unix://{socket}"
                process.terminate()
                await process.wait()


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--cuts", default=100, show_default=True, help="At most so many.")
@click.option("--seconds", default=3600.0, show_default=True, help="None begins after that.")
@click.option("--kernel", "series", default="6.1", show_default=True, help="A series of Debian's.")
@click.option("--fs", type=click.Choice(list(MAKE)), default="ext4", show_default=True)
@click.option("--seed", type=int, help="Of an earlier run.  [random]")
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="For the disk.")
@click.option("--keep", is_flag=True, help="Leave the disk there when a promise was broken.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(
    cuts: int,
    seconds: float,
    series: str,
    fs: str,
    seed: int | None,
    directory: Path,
    *,
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
        campaign = Campaign(scratch, series, fs, seed)
    except CannotBuildError as exc:
        shutil.rmtree(scratch)
        raise click.ClickException(str(exc)) from exc
    try:
        trio.run(campaign.run, cuts, seconds)
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
        "acknowledged": dict(campaign.acknowledged),
        "receipts_checked": campaign.oracle.checked,
        "durable_bytes_checked": campaign.oracle.checked_durable_bytes,
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
