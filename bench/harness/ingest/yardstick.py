"""fio beside the servers: the disk's own rate, for as many bytes as the uploads have together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.harness import fio
from bench.harness.units import MIB

if TYPE_CHECKING:
    from bench.harness.measurement import Measurement, Order

DEPTH = 16


def disk(order: Order) -> Measurement:
    """Write one fresh file in blocks of 1 MiB, sixteen in flight, as bench/run.py has it."""
    cell = replace(
        order.cell, pattern="fresh", block_bytes=min(MIB, order.cell.size_bytes), depth=DEPTH
    )
    measured = fio.io_uring(replace(order, cell=cell))
    facts = {name: value for name, value in measured.facts.items() if name != "latency_us"}
    return replace(measured, facts=facts)
