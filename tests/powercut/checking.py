"""A state that is mounted is started on, as after any power cut, and held against the history."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import structlog
import trio

from tests.powercut.history import History, judge
from tests.powercut.workload import SERVED
from uringd import catalog, catalog_schema
from uringd.catalog import CatalogError
from uringd.config import Settings
from uringd.groups import leaves
from uringd.root import RootError
from uringd.server import Server, open_server
from uringio import UringioError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from tests.disks.cut_disks import Cut
    from tests.powercut.history import Partial
    from tests.powercut.tally import Tally

SLOT_BYTES = 64 << 10
WHOLE_EVERY = 10
SPOOL = f"{SERVED}/.uringd/spool"

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def check(point: Path, history: History, cut: Cut, tally: Tally) -> list[str]:
    """Start the server on what is mounted; the result is a sentence for each broken promise.

    This is `uringd serve` from its start to where it would listen, in this process: a process of
    its own would cost more than all the rest. So would the megabyte that the catalog writes to have
    room later, which is left out but for every WHOLE_EVERY-th image.
    """
    whole = tally.images % WHOLE_EVERY == 0
    vars(catalog)["make_room"] = catalog_schema.make_room if whole else make_no_room
    try:
        return trio.run(_check, point, history, cut, tally)
    except* (RootError, CatalogError, UringioError, OSError) as group:
        faults = [f"the server does not start: {exc}" for exc in leaves(group)]
    return faults


async def _check(point: Path, history: History, cut: Cut, tally: Tally) -> list[str]:
    settings = Settings(
        root=point / SERVED, listen=(), slots=2, slot_bytes=SLOT_BYTES, slab_bytes_max=0
    )
    async with open_server(settings) as server:
        faults = list(_look_at_files(point, history, cut, tally))
        for upload_id, upload in history.uploads.items():
            if text := await _look_at_upload(server, point, upload_id, upload, cut.moment, tally):
                faults.append(f"{upload.name} ({upload_id}): {text}")
        faults += await _look_at_receipts(server, history, cut, tally)
        left = {record.upload_id for record in await server.catalog.uploads()}
        if server.root.spooled() != left:
            faults.append(f"spool files {server.root.spooled()}, and records of {left}")
    return faults


def make_no_room(_db: sqlite3.Connection) -> None:
    """Leave the catalog as long as it is."""


def _look_at_files(point: Path, history: History, cut: Cut, tally: Tally) -> Iterator[str]:
    """Hold every name, and every file that is there, against what it may be."""
    for path, versions in history.files.items():
        found = _read(point / path)
        tally.promised += any(version.is_promised(cut.moment) for version in versions)
        tally.compared_bytes += len(found or b"")
        if text := judge(versions, found, cut.moment):
            yield f"{path}: {text}"
    for above, directories, names in os.walk(point / SERVED):
        if ".uringd" in directories:
            directories.remove(".uringd")
        for name in names:
            path = os.path.relpath(os.path.join(above, name), point)
            if path not in history.files:
                yield f"{path}: it is there, and nobody has committed it"


async def _look_at_upload(
    server: Server, point: Path, upload_id: str, upload: Partial, moment: int, tally: Tally
) -> str:
    """Say what of a durable prefix is not there, or nothing."""
    promised = upload.promised(moment)
    record = await server.catalog.find(upload_id)
    if record is None:
        if not promised:
            return ""
        if upload.may_be_over(moment) and await server.catalog.find_receipt(upload_id):
            return ""  # its name is looked at with the others
        return f"{promised} bytes were acknowledged as durable, and there is no upload"
    tally.resumable += 1
    first = next(iter(record.ranges), None)
    durable = first.length if first is not None and first.offset == 0 else 0
    if durable < promised:
        return f"{promised} bytes were acknowledged as durable, and {durable} are recorded"
    found = _read(point / SPOOL / f"{upload_id}.part") or b""
    for part in record.ranges:
        end = part.offset + part.length
        if found[part.offset : end] != upload.content[part.offset : end]:
            return f"bytes [{part.offset}, {end}) are recorded as durable, and differ"
        tally.compared_bytes += part.length
    return ""


async def _look_at_receipts(server: Server, history: History, cut: Cut, tally: Tally) -> list[str]:
    """Find the Receipt of every COMMIT that was answered: it can be asked for again."""
    faults = []
    for path, versions in history.files.items():
        for version in versions:
            if version.upload_id and version.is_promised(cut.moment):
                tally.receipts += 1
                if await server.catalog.find_receipt(version.upload_id) is None:
                    faults.append(f"{path}: the Receipt of {version.upload_id} is lost")
    return faults


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
