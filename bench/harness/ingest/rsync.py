"""An rsync daemon, with --fsync: each file is fsynced before it gets its name.

Each connection is an rsync of its own that sends a folder of its own, as rsync is used; its start
is inside the time. What the daemon forks for a connection is gone with it, so its memory is looked
at while it runs. rsync tells of no single upload when it was answered: there are no latencies.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.harness.ingest.load import LOAD_TIMEOUT_S, Load, measure_load
from bench.harness.ingest.objects import begin_of
from bench.harness.ingest.plain import folder_of
from bench.harness.ingest.server import HOST, Server, free_port, program
from bench.harness.measurement import CannotRunError
from bench.harness.quiet import wait_for_rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects
    from bench.harness.measurement import Measurement, Order

INSTALL = "apt-get install rsync"
POLL_S = 0.1
CONFIGURATION = """
pid file = {scratch}/pid
lock file = {scratch}/lock
address = {host}
use chroot = no
reverse lookup = no
max connections = 0
[root]
path = {root}
read only = no
{user}
"""


def daemon(order: Order) -> Measurement:
    """Measure Debian's rsync."""
    root = folder_of(order)
    found = program("rsync", INSTALL)
    help_text = subprocess.run([found, "--help"], capture_output=True, text=True, check=False)
    if "--fsync" not in help_text.stdout:
        raise CannotRunError("this rsync has no --fsync: 3.2.4 is the first that has")
    server = RsyncDaemon(found, root, Path(order.directory))

    @contextlib.contextmanager
    def prepare(objects: Objects) -> Iterator[Run]:
        folders = _folders(objects, Path(order.directory) / "sources")
        wait_for_rest(root, order.rest_timeout_s)  # what was just written is no part of it
        url = f"rsync://{HOST}:{server.port}/root/"
        commands = [[found, "-r", "--fsync", f"{folder}/", url] for folder in folders]
        yield lambda begin: server.take(commands, begin)

    return measure_load(order, server, root, prepare)


class RsyncDaemon(Server):
    """A daemon that looks at the memory of its children while they live."""

    ended_by_sigterm: ClassVar[tuple[int, ...]] = (0, -15, 20)
    """20 is rsync's own code for a signal (rsync(1), EXIT VALUES)."""

    def __init__(self, found: str, root: Path, scratch: Path) -> None:
        port = free_port()
        # A daemon that is root becomes nobody, who may not write here.
        user = "" if os.geteuid() else "uid = root\ngid = root"
        configuration = scratch / "rsyncd.conf"
        configuration.write_text(
            CONFIGURATION.format(scratch=scratch, host=HOST, root=root, user=user)
        )
        command = [found, "--daemon", "--no-detach", f"--config={configuration}", f"--port={port}"]
        super().__init__(command, port, scratch / "log")
        self._peak_bytes = 0

    def peak_rss_bytes(self) -> int | None:
        """Peak resident memory of all that lived at the same time."""
        return self._peak_bytes or super().peak_rss_bytes()

    def take(self, commands: list[list[str]], begin: Begin) -> Load:
        """Run all clients side by side. Raises CannotRunError when one fails."""
        begin()
        clients: list[subprocess.Popen[bytes]] = []
        began = time.perf_counter_ns()
        try:
            clients += [_start(command) for command in commands]
            self._watch(clients)
            end = time.perf_counter_ns()
        finally:
            for client in clients:
                if client.poll() is None:
                    client.kill()
        for client in clients:
            _, complained = client.communicate()
            if client.returncode:
                why = complained.decode(errors="replace").strip().splitlines() or ["no reason"]
                raise CannotRunError(f"an rsync client failed: {why[0]}")
        return Load((end - began) / 1e9)

    def _watch(self, clients: list[subprocess.Popen[bytes]]) -> None:
        """Wait for all, and look at the daemon's memory meanwhile."""
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        waiting = {os.pidfd_open(client.pid): client for client in clients}
        try:
            while waiting:
                for fd in select.select(list(waiting), [], [], POLL_S)[0]:
                    waiting.pop(fd).wait()
                    os.close(fd)
                self._peak_bytes = max(self._peak_bytes, super().peak_rss_bytes() or 0)
                if time.monotonic() > deadline:
                    raise CannotRunError(f"rsync was not done after {LOAD_TIMEOUT_S:.0f} s")
        finally:
            for fd in waiting:
                os.close(fd)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _folders(objects: Objects, sources: Path) -> list[Path]:
    """Lay out what each connection sends; big objects are links to one file."""
    sources.mkdir()
    one = objects.source
    if not objects.small and one.stat().st_size != objects.size_bytes:
        one = sources / "object"
        begin_of(objects.source, objects.size_bytes, one)
    folders = []
    for connection in range(objects.connections):
        folder = sources / f"from{connection}"
        folder.mkdir()
        folders.append(folder)
        for number in objects.share(connection):
            path = folder / objects.name(number)
            if objects.small:
                path.write_bytes(objects.head(number) + objects.tail())
            else:
                path.hardlink_to(one)
    return folders
