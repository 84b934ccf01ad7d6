"""nginx with DAV PUT, as its documentation sets it up.

It writes a body into a temporary file, through the page cache, and renames it; on one file system,
or the rename would be a copy. It never syncs anything. So there are two of each: as it is, which a
power cut takes back, and with the file system synced after the run, inside the time, which is the
earliest moment at which any of the uploads is known to be durable.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.ingest.http_load import PutLoad
from bench.harness.ingest.load import measure_load
from bench.harness.ingest.plain import folder_of
from bench.harness.ingest.server import HOST, Server, free_port, program

if TYPE_CHECKING:
    from bench.harness.measurement import Measurement, Order

INSTALL = "apt-get install nginx-light"
CONFIGURATION = """
daemon off;
pid {scratch}/pid;
{user}
worker_processes {workers};
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    keepalive_requests 1000000;
    client_body_temp_path {scratch}/temp;
    proxy_temp_path {scratch}/other; fastcgi_temp_path {scratch}/other;
    uwsgi_temp_path {scratch}/other; scgi_temp_path {scratch}/other;
    server {{
        listen {host}:{port};
        root {root};
        location / {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


def two_workers(order: Order) -> Measurement:
    """Measure PUT with a worker for each of two CPUs; not durable."""
    return _measure(order, 2, sync=False)


def one_worker(order: Order) -> Measurement:
    """Measure PUT with one worker; not durable."""
    return _measure(order, 1, sync=False)


def two_workers_synced(order: Order) -> Measurement:
    """Measure PUT, then syncfs(2)."""
    return _measure(order, 2, sync=True)


def one_worker_synced(order: Order) -> Measurement:
    """Measure PUT with one worker, then syncfs(2)."""
    return _measure(order, 1, sync=True)


def _measure(order: Order, workers: int, *, sync: bool) -> Measurement:
    root = folder_of(order)
    server = nginx(Path(order.directory), root, workers)
    port = server.port
    return measure_load(
        order, server, root, lambda objects: PutLoad.prepare(port, objects), sync=sync
    )


def nginx(scratch: Path, root: Path, workers: int) -> Server:
    """Set up nginx. Raises CannotRunError where it is not installed."""
    found = program("nginx", INSTALL)
    port = free_port()
    configuration = scratch / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            scratch=scratch,
            # The workers of a master that is root would be somebody who may not write here.
            user="" if os.geteuid() else f"user {getpass.getuser()};",
            workers=workers,
            host=HOST,
            port=port,
            root=root,
        )
    )
    command = [found, "-p", str(scratch), "-e", "stderr", "-c", str(configuration)]
    return Server(command, port, scratch / "nginx.out")
