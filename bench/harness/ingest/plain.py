"""Plain Python: recv + os.write + fsync behind a socket, and a loop of small files without one."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.content import stamp
from bench.harness.daemon import PYTHON
from bench.harness.ingest.http_load import PutLoad
from bench.harness.ingest.load import measure_load
from bench.harness.ingest.objects import Objects
from bench.harness.ingest.server import Server, free_port
from bench.harness.latency import percentiles_us
from bench.harness.measurement import Measurement
from bench.harness.meter import Meter
from bench.harness.plain import write_all

if TYPE_CHECKING:
    from bench.harness.measurement import Order

PROGRAM = Path(__file__).with_name("apps") / "plain.py"


def recv_write_fsync(order: Order) -> Measurement:
    """Measure the least that a server can do, in Python."""
    root = folder_of(order)
    port = free_port()
    command = [*PYTHON, str(PROGRAM), str(root), str(port)]
    server = Server(command, port, Path(order.directory) / "log")
    return measure_load(order, server, root, lambda objects: PutLoad.prepare(port, objects))


def folder_of(order: Order) -> Path:
    """Make the empty folder that uploads go to."""
    root = Path(order.directory) / "root"
    root.mkdir(mode=0o700)
    return root


def files_loop(order: Order) -> Measurement:
    """Publish small files one after another: write, fsync, rename, fsync of the directory."""
    objects = Objects(order.cell, order.source)
    root = folder_of(order)
    block = objects.block()
    found_ns = []
    meter = Meter()
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        meter.start()
        for number in range(objects.count):
            began = time.perf_counter_ns()
            stamp(block, number)
            publish(block, objects.name(number), directory)
            found_ns.append(time.perf_counter_ns() - began)
        usage = meter.stop()
    finally:
        os.close(directory)
    facts = {"latency_us": percentiles_us(found_ns)}
    measured = Measurement.of_this_process(order, usage, facts)
    return replace(measured, path="", wrong=objects.wrong(objects.in_folder(root)))


def publish(block: bytearray, name: str, directory: int) -> None:
    """Make one file durable, then visible, then its name durable."""
    fd = os.open(name + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        write_all(fd, memoryview(block))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(name + ".part", name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
