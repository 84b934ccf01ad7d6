"""Starlette and tuspyserver under uvicorn, with the parser and the loop of `uvicorn[standard]`."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness.content import STAMP
from bench.harness.daemon import PYTHON
from bench.harness.ingest.http_load import PutLoad
from bench.harness.ingest.load import Load, measure_load
from bench.harness.ingest.objects import begin_of
from bench.harness.ingest.plain import folder_of
from bench.harness.ingest.server import HOST, Server, free_port
from bench.harness.measurement import CannotRunError
from bench.harness.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.harness.ingest.load import Begin, Run
    from bench.harness.ingest.objects import Objects
    from bench.harness.measurement import Measurement, Order

APPS = Path(__file__).with_name("apps")
TUS_CHUNK_BYTES = 64 * MIB
"""tuspy reads a chunk into memory and sends it as one PATCH: big ones suit both."""


def starlette_synced(order: Order) -> Measurement:
    """Measure an endpoint that fsyncs each file before it answers."""
    return _starlette(order, "1")


def starlette(order: Order) -> Measurement:
    """Measure an endpoint that does not."""
    return _starlette(order, "0")


def _starlette(order: Order, fsync: str) -> Measurement:
    root = folder_of(order)
    server = uvicorn(order, root, "starlette_put", ["starlette"], {"INGEST_FSYNC": fsync})
    port = server.port
    return measure_load(order, server, root, lambda objects: PutLoad.prepare(port, objects))


def tus_synced(order: Order) -> Measurement:
    """Measure tuspyserver with its storage that fsyncs the data of every PATCH."""
    return _tus(order, "1")


def tus(order: Order) -> Measurement:
    """Measure tuspyserver as it comes."""
    return _tus(order, "0")


def _tus(order: Order, fsync: str) -> Measurement:
    """Upload by tuspy, in as many threads as there are connections."""
    root = folder_of(order)
    modules = ["tuspyserver", "tusclient"]
    server = uvicorn(order, root, "tus_server", modules, {"INGEST_FSYNC": fsync})

    @contextlib.contextmanager
    def prepare(objects: Objects) -> Iterator[Run]:
        from tusclient.client import TusClient  # noqa: PLC0415  # of the bench extra

        url = f"http://{HOST}:{server.port}/files/"
        source = objects.source
        if not objects.small and source.stat().st_size != objects.size_bytes:
            source = Path(order.directory) / "object"
            begin_of(objects.source, objects.size_bytes, source)
        client = TusClient(url)
        threads = ThreadPoolExecutor(objects.connections)
        try:
            yield lambda begin: _upload_all(client, objects, source, root, threads, begin)
        finally:  # whoever is told to end does not wait for uploads: their server ends first
            threads.shutdown(wait=False, cancel_futures=True)

    return measure_load(order, server, root, prepare)


def _upload_all(
    client: Any,
    objects: Objects,
    source: Path,
    root: Path,
    threads: ThreadPoolExecutor,
    begin: Begin,
) -> Load:
    commits_ns: list[tuple[int, int]] = []
    places: list[tuple[int, Path]] = []

    def upload(connection: int) -> None:
        for number in objects.share(connection):
            began = time.perf_counter_ns()
            if objects.small:
                stream = BytesIO(STAMP.pack(number) + objects.tail())
                uploader = client.uploader(file_stream=stream, chunk_size=objects.size_bytes)
            else:
                uploader = client.uploader(str(source), chunk_size=TUS_CHUNK_BYTES)
            uploader.upload()
            if objects.small:  # of a big one nobody tells when its last byte was sent
                commits_ns.append((began, time.perf_counter_ns()))
            places.append((number, root / uploader.url.rpartition("/")[2]))

    begin()
    began = time.perf_counter_ns()
    try:
        list(threads.map(upload, range(objects.connections)))
    except Exception as exc:
        if type(exc).__module__.partition(".")[0] != "tusclient":
            raise
        raise CannotRunError(f"tuspy failed: {exc}") from exc
    return Load((time.perf_counter_ns() - began) / 1e9, commits_ns, places=places)


def uvicorn(
    order: Order, root: Path, app: str, modules: list[str], environment: dict[str, str]
) -> Server:
    """Set up uvicorn. Raises CannotRunError where something of the bench extra is missing."""
    for module in ["uvicorn", "uvloop", "httptools", *modules]:
        if importlib.util.find_spec(module) is None:
            raise CannotRunError(f"{module} is not installed: pip install 'uringd[bench]'")
    port = free_port()
    command = [*PYTHON, "-m", "uvicorn", "--app-dir", str(APPS), f"{app}:app", "--host", HOST]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning", "--backlog", "1024"]
    return Server(
        command, port, Path(order.directory) / "log", {"INGEST_ROOT": str(root), **environment}
    )
