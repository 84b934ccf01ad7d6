"""nginx PUT under wrk, the load generator that the field knows: as many uploads as fit in a time.

wrk runs for seconds and makes no certain number of requests; what it made is scaled to the cell's
own number. Each upload has a name and a stamp of its own, by a script.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.ingest.load import Load, measure_load
from bench.harness.ingest.nginx import nginx
from bench.harness.ingest.plain import folder_of
from bench.harness.ingest.server import HOST, program
from bench.harness.measurement import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects
    from bench.harness.measurement import Measurement, Order

INSTALL = "apt-get install wrk"
CONNECTIONS = 32
DURATION_S = 2
"""Ten thousand uploads of 4 KiB, or so: enough for a rate, few enough for the directory."""
TIMEOUT_S = 60.0
SCRIPT = Path(__file__).with_name("apps") / "put.lua"


def two_workers(order: Order) -> Measurement:
    """Measure nginx with two workers under wrk with 32 connections."""
    root = folder_of(order)
    found = program("wrk", INSTALL)
    server = nginx(Path(order.directory), root, 2)

    @contextlib.contextmanager
    def prepare(objects: Objects) -> Iterator[Run]:
        tail = Path(order.directory) / "tail"
        tail.write_bytes(objects.tail())
        command = [found, "-t1", f"-c{CONNECTIONS}", f"-d{DURATION_S}s", "--script", str(SCRIPT)]
        command += [f"http://{HOST}:{server.port}", "--", str(tail)]
        yield lambda begin: _run(command, root, begin)

    return measure_load(order, server, root, prepare)


def _run(command: list[str], root: Path, begin: Begin) -> Load:
    begin()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complained = process.communicate(timeout=TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    try:
        found = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError) as exc:
        why = (complained.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotRunError(f"wrk failed: {why}") from exc
    if found["errors"] or not found["requests"]:
        raise CannotRunError(f"wrk met {found['errors']} errors in {found['requests']} requests")
    time.sleep(SETTLE_S)
    return Load(
        seconds=found["seconds"],
        latency_us={"50": found["p50"], "90": found["p90"], "99": found["p99"]},
        uploads=found["requests"],
        places=_places(root),
    )


SETTLE_S = 0.2
"""The server finishes what wrk left in the middle; after that nothing changes any more."""


def _places(root: Path) -> list[tuple[int, Path]]:
    """Give what was published: what wrk left in the middle was not."""
    return [(int(path.name), path) for path in sorted(root.iterdir())]
