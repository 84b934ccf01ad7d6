"""All cuts of a campaign: one disk that goes through them all, and a guest woken anew for each."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import trio

from tests.crash.ledger import BrokenPromiseError
from tests.crash.processes import started
from tests.guest.build import IN_GUEST, image
from tests.guest.load import Load
from tests.guest.machine import Guest, GuestError, Machine, running, save
from tests.guest.oracle import LEFT_MAX, Oracle
from uringd.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PORT = 7433
CONFIGURATION = r"checkpoint_bytes = 1048576\ncheckpoint_s = 0.5\n"
"""Many checkpoints: as many records that a cut can meet."""
SERVER_OPTIONS = ("--insecure", "--slot-bytes", "65536", "--slots", "64")
"""Short chunks, so that a SYNC in the middle of a file makes most of it durable."""
DISK_BYTES = 1 << 30
LOAD_S = (0.1, 4.0)
"""From the first connection to the cut: a few dozen acknowledgements."""
SERVE_S = 120.0
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs",),
}
WAITS = (
    "mkfifo /tmp/orders;"
    f" (cd /{IN_GUEST} && python3 -P tests/guest/serve.py /tmp/orders >/tmp/log 2>&1 &);"
    f" printf '{CONFIGURATION}' >/tmp/configuration;"
    " for i in $(seq 1200); do grep -q ^waiting /tmp/log && break; sleep 0.1; done;"
    " grep -q ^waiting /tmp/log || { cat /tmp/log; false; }"
)
LISTENS = (
    "for i in $(seq 1200); do grep -q ^listening /tmp/log && break; sleep 0.1; done;"
    " grep -q ^listening /tmp/log || { cat /tmp/log; false; }"
)


@dataclass(frozen=True)
class Plan:
    """What is cut: so often, or until the time is up."""

    kernel: str
    file_system: str
    seed: int
    cuts: int
    seconds: float
    forgetful: bool = False
    before: str = ""
    """Shell that is run before each cut, and may wait: for a machine with other things to do."""


class Campaign:
    """The rounds of a plan, and what they found."""

    def __init__(self, scratch: Path, plan: Plan) -> None:
        """Find the guest. Raises CannotBuildError."""
        self._plan = plan
        self._guest = Guest(*image(plan.kernel), scratch / "disk.img", PORT)
        self._state = scratch / "state"
        self._mount_point = scratch / "mounted"
        self._mount_point.mkdir()
        self._chance = random.Random(plan.seed)
        self.oracle = Oracle()
        self.load = Load(self.oracle, plan.seed)
        self.cuts = 0
        self.buffered = 0

    async def run(self) -> None:
        """Cut as planned. Raises BrokenPromiseError, GuestError."""
        plan = self._plan
        with self._guest.disk.open("wb") as disk:
            disk.truncate(DISK_BYTES)
        make = [*MAKE[plan.file_system], str(self._guest.disk)]
        await trio.run_process(make, capture_stdout=True, capture_stderr=True)
        click.echo("booting the guest once", err=True)
        await save(self._guest, self._state, WAITS)
        deadline = time.monotonic() + plan.seconds
        while self.cuts < plan.cuts and time.monotonic() < deadline:
            if plan.before:
                await trio.run_process(["sh", "-c", plan.before])
            await self._round()
            self.cuts += 1
            if self.cuts % 10 == 0:
                click.echo(f"{self.cuts} cuts: {dict(self.oracle.counts)}", err=True)

    async def _round(self) -> None:
        async with running(self._guest, self._state) as machine:
            await self._serve(machine)
            seconds = self._chance.uniform(*LOAD_S)
            try:
                await self.load.run(f"tcp://127.0.0.1:{machine.port}", seconds, machine.cut)
            except* (ClientError, trio.TooSlowError) as group:
                said = await machine.run("tail -c 3000 /tmp/log")
                raise GuestError(f"before the cut: {group.exceptions}; {said}") from group
        is_last = self.cuts + 1 == self._plan.cuts
        with self._mounted():
            async with self._server() as url:
                root = self._mount_point / "root"
                await self.oracle.check(root, url, leave=0 if is_last else LEFT_MAX)

    async def _serve(self, machine: Machine) -> None:
        """Mount the guest's disk and start its server."""
        buffered = self._chance.random() < 1 / 2
        self.buffered += buffered
        where = ("--root", "/data/root", "--listen", f"tcp://0.0.0.0:{PORT}")
        orders = {
            "entropy": self._chance.randbytes(32).hex(),
            "buffered": buffered,
            "forgetful": self._plan.forgetful,
            "arguments": [*where, "--config", "/tmp/configuration", *SERVER_OPTIONS],
        }
        mount = f"mount -t {self._plan.file_system} /dev/vda /data && mkdir -p /data/root"
        await machine.run(f"{mount} && echo '{json.dumps(orders)}' >/tmp/orders")
        await machine.run(LISTENS, SERVE_S)

    @contextlib.contextmanager
    def _mounted(self) -> Iterator[None]:
        """Mount the disk here, which replays its journal."""
        disk, there = str(self._guest.disk), str(self._mount_point)
        mount = ["mount", "-o", "loop", "-t", self._plan.file_system, disk, there]
        subprocess.run(mount, check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", there], check=True)

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[str]:
        root, socket = self._mount_point / "root", self._state.with_suffix(".sock")
        arguments = ["serve", "--root", str(root), "--listen", f"unix://{socket}"]
        with self._state.with_suffix(".log").open("ab") as log:
            async with started(arguments, stdout=subprocess.PIPE, stderr=log) as process:
                assert process.stdout is not None
                with trio.fail_after(SERVE_S):
                    if not await process.stdout.receive_some():
                        raise BrokenPromiseError("no server starts on the disk after the cut")
                yield f"unix://{socket}"
                process.terminate()
                await process.wait()
