"""load.py: what a measurement is made of: times, costs, latencies, and whether it is right."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest

from bench.harness.cell import Cell
from bench.harness.ingest.load import Load, measure_load
from bench.harness.measurement import CannotRunError, Order
from bench.harness.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects
    from bench.harness.measurement import Measurement

CELL = Cell("uploads", 16 * KIB, 4 * KIB, 2)


class Fake:
    """A server that uses a second of CPU each time it is looked at."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.looked = 0
        self.running = False

    def __enter__(self) -> Self:
        self.running = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.running = False

    def cpu_s(self) -> tuple[float, float]:
        self.looked += 1
        return self.looked, 0.0

    def peak_rss_bytes(self) -> int:
        return 4096

    def stop(self) -> int:
        return self.code


class Uploads:
    """Writes the objects itself, and says that it took one second."""

    def __init__(self, root: Path, load: Load) -> None:
        self.root = root
        self.load = load

    @contextmanager
    def prepare(self, objects: Objects) -> Iterator[Run]:
        def run(begin: Begin) -> Load:
            begin()
            for number in range(objects.count):
                content = objects.head(number) + bytes(objects.tail())
                (self.root / objects.name(number)).write_bytes(content)
            return self.load

        yield run


def measured(root: Path, load: Load, server: Fake, *, sync: bool = False) -> Measurement:
    order = Order("any", str(root), CELL, 0)
    return measure_load(order, server, root, Uploads(root, load).prepare, sync=sync)


def test_the_servers_cpu_counts_from_the_begin_and_the_clients_is_a_fact(tmp_path: Path) -> None:
    server = Fake()
    found = measured(tmp_path, Load(1.0, [(0, 1_000_000), (0, 3_000_000)]), server)
    assert not server.running
    assert (found.seconds, found.user_s, found.system_s) == (1.0, 1.0, 0.0)
    assert found.facts["latency_us"]["50"] == 1000
    assert found.facts["latency_us"]["99"] == 3000
    assert found.facts["client_cpu_s"] >= 0
    assert found.rss_bytes == 4096
    assert (found.path, found.wrong) == ("", "")


def test_with_sync_nothing_is_answered_before_it_and_it_is_in_the_time(tmp_path: Path) -> None:
    load = Load(1.0, [(0, 1_000_000)])
    found = measured(tmp_path, load, Fake(), sync=True)
    assert found.seconds == 1.0 + found.facts["sync_s"]
    assert found.facts["latency_us"]["50"] > 1000


def test_a_generator_that_makes_as_many_as_it_can_is_counted_by_its_rate(tmp_path: Path) -> None:
    found = measured(tmp_path, Load(1.0, uploads=16), Fake())
    assert found.seconds == 0.25
    assert found.user_s == 0.25
    assert found.facts["uploads"] == 16


def test_wrong_bytes_are_told(tmp_path: Path) -> None:
    load = Load(1.0, places=[(1, tmp_path / "000000")])
    assert measured(tmp_path, load, Fake()).wrong.startswith("000000 has 4096 bytes")


def test_a_server_that_does_not_end_well_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="left exit code 3"):
        measured(tmp_path, Load(1.0), Fake(code=3))
