"""What a load generator found, and the measurement that is made of it.

The clock starts when every connection is open and ends with the last answer: starting servers,
connecting and saying HELLO are outside of it. With `sync` it goes on until syncfs(2) has returned,
and only then is any of the uploads counted as durable.

Which latency: of an upload of at most 1 MiB all of it, from before its first byte to its answer;
of a bigger one from after its last byte was handed to the kernel to its answer. With `sync` to the
end of that.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from bench.harness.ingest.objects import Objects
from bench.harness.latency import percentiles_us
from bench.harness.measurement import CannotRunError, Measurement
from bench.harness.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.harness.measurement import Order

    Begin = Callable[[], None]
    Run = Callable[[Begin], "Load"]

LOAD_TIMEOUT_S = 240.0
"""What hangs must not cost a run of half an hour; the slowest uploads 2 GiB in a quarter of it."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Load:
    """What the generator saw.

    `seconds` from the first byte of the first upload to the last answer. `commits_ns` has, for each
    upload that was timed, when its latency began and when its answer came, by time.perf_counter_ns.
    `latency_us` has percentiles where the generator knows no more than those. `uploads` is how many
    there were, where the generator decides it: the cell's own are counted at that rate.
    """

    seconds: float
    commits_ns: list[tuple[int, int]] = field(default_factory=list)
    latency_us: dict[str, float] = field(default_factory=dict)
    uploads: int | None = None
    places: Iterable[tuple[int, Path]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Serves(Protocol):
    """A server, from entering to leaving."""

    def __enter__(self) -> Self:
        """Start it and wait until it listens. Raises CannotRunError."""

    def __exit__(self, *exc: object) -> None:
        """End it, at once if `stop` was not called."""

    def cpu_s(self) -> tuple[float, float]:
        """User and system CPU seconds so far, of all its processes."""

    def peak_rss_bytes(self) -> int | None:
        """Peak resident memory so far, of all its processes together."""

    def stop(self) -> int:
        """End it by SIGTERM; the result is its exit code."""


def measure_load(
    order: Order,
    server: Serves,
    root: Path,
    prepare: Callable[[Objects], AbstractContextManager[Run]],
    *,
    sync: bool = False,
) -> Measurement:
    """Measure uploads to a server that puts them into `root` under their own names.

    `prepare` makes ready what is not measured (connections, files) when entered, and yields the
    load itself, which calls what it is given at the moment when it begins.
    """
    objects = Objects(order.cell, order.source)
    meter = Meter()
    with server:
        before = (0.0, 0.0)

        def begin() -> None:
            nonlocal before
            before = server.cpu_s()
            meter.start()

        with prepare(objects) as run:
            load = run(begin)
            seconds = load.seconds + (_sync(root, load) if sync else 0.0)
            usage = meter.stop()
        after = server.cpu_s()
        rss_bytes = server.peak_rss_bytes()
        if code := server.stop():
            raise CannotRunError(f"its server left exit code {code} after SIGTERM")
    # A generator that runs for a time makes as many uploads as it can; the cell has its own number.
    share = objects.count / load.uploads if load.uploads else 1.0
    user_s, system_s = (now - then for now, then in zip(after, before, strict=True))
    client_s = usage.user_s + usage.system_s
    places = objects.in_folder(root) if load.places is None else load.places
    latency_us = load.latency_us
    if load.commits_ns:
        latency_us = percentiles_us([end - begin for begin, end in load.commits_ns])
    return Measurement(
        seconds=seconds * share,
        wall_s=usage.wall_s * share,
        user_s=user_s * share,
        system_s=system_s * share,
        kworkers_s=None if usage.kworkers_s is None else usage.kworkers_s * share,
        others_s=usage.others_s(user_s + system_s + client_s) * share,
        rss_bytes=rss_bytes,
        path="",
        facts={
            "client_cpu_s": client_s * share,
            "latency_us": latency_us,
            "uploads": load.uploads or objects.count,
            **load.facts,
        },
        wrong=objects.wrong(places),
    )


def _sync(root: Path, load: Load) -> float:
    """Write out the file system; from now on, and not before, the uploads are durable."""
    began = time.perf_counter_ns()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, f"syncfs of {root}: {os.strerror(code)}")
    finally:
        os.close(fd)
    end = time.perf_counter_ns()
    load.commits_ns = [(begin, end) for begin, _ in load.commits_ns]
    load.facts["sync_s"] = (end - began) / 1e9
    return (end - began) / 1e9
