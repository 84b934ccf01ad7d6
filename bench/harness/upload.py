"""Uploads to a uringd on the same disk: over TCP, over a Unix socket, and by shared memory.

Each measurement has a daemon of its own, so that its peak memory is that of one upload. What is
counted as CPU is the daemon's; the client's is among the facts. The source is read once before, so
that the page cache holds it: what is measured is the way in, not another disk.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.content import warm
from bench.harness.daemon import Daemon, Transport, put_command, read_receipt
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from bench.harness.measurement import Order

NAME = "upload.bin"


def over_tcp(order: Order) -> Measurement:
    """Upload over TCP loopback."""
    return _upload(order, "tcp")


def over_unix(order: Order) -> Measurement:
    """Upload over a Unix socket."""
    return _upload(order, "unix")


def by_copy(order: Order) -> Measurement:
    """Upload through memory of the client's that the server copies out of."""
    return _upload(order, "unix", "copy")


def by_sealed(order: Order) -> Measurement:
    """Upload through memory of the client's that is sealed, and written from where it is."""
    return _upload(order, "unix", "sealed")


def by_slab(order: Order) -> Measurement:
    """Upload through memory of the server's that the client fills, its checksums not looked at."""
    return _upload(order, "unix", "slab")


def by_slab_read_back(order: Order) -> Measurement:
    """Do as `by_slab`, with every chunk read back from the disk and compared."""
    return _upload(order, "unix", "slab", "--read-back")


def _upload(order: Order, transport: Transport, way: str = "socket", *options: str) -> Measurement:
    root = Path(order.directory) / "root"
    root.mkdir(mode=0o700)
    source = Path(order.source)
    warm(source, order.cell.block_bytes)
    meter = Meter()
    with Daemon(root, [transport]) as daemon:
        before = daemon.cpu_s()
        meter.start()
        put = subprocess.run(
            [
                *put_command(source, daemon.urls[transport], NAME),
                *("--quiet", "--transport", way),
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        usage = meter.stop()
        user_s, system_s = (now - then for now, then in zip(daemon.cpu_s(), before, strict=True))
        rss_bytes = daemon.peak_rss_bytes()
        if put.returncode:
            why = put.stderr.strip().splitlines() or [f"exit code {put.returncode}"]
            raise CannotRunError(f"uringd put failed: {why[-1]}")
        if code := daemon.stop():
            raise CannotRunError(f"uringd left exit code {code} after SIGTERM")
    receipt = read_receipt(put.stdout)
    client_cpu_s = usage.user_s + usage.system_s
    return Measurement(
        seconds=receipt["seconds"],
        wall_s=usage.wall_s,
        user_s=user_s,
        system_s=system_s,
        kworkers_s=usage.kworkers_s,
        others_s=usage.others_s(user_s + system_s + client_cpu_s),
        rss_bytes=rss_bytes,
        path=str(root / NAME),
        facts={"client_cpu_s": client_cpu_s, "receipt": receipt},
    )
