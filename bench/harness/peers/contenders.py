"""Which libraries take part, and how each is used.

Each gets what its interface has: a file object that has one position writes one block at a time,
one that writes at offsets has as many writes in flight as the others. Each ends with its own fsync
where it has one, and with os.fsync in a thread where it has none.
"""

from __future__ import annotations

from bench.harness.contender import BUFFERED, Contender

OPEN_TO_CLOSE = "open to close"
FSYNCED = "file fsynced"


def _buffered(name: str, title: str, run: str) -> Contender:
    run = f"bench.harness.peers.{run}"
    return Contender(name, title, "library", run, OPEN_TO_CLOSE, FSYNCED, untimed=BUFFERED)


PEERS = (
    _buffered("trio-file", "trio.open_file, one at a time", "file_objects:with_trio"),
    _buffered("anyio-file", "anyio.open_file, one at a time", "file_objects:with_anyio"),
    _buffered("aiofiles", "aiofiles, one at a time", "file_objects:with_aiofiles"),
    _buffered("urio", "urio (io_uring), one at a time", "file_objects:with_urio"),
    _buffered("aiofile", "aiofile on caio (io_uring)", "offset_files:with_aiofile"),
    _buffered("ayafileio", "ayafileio (io_uring)", "offset_files:with_ayafileio"),
    Contender(
        "ayafileio-direct",
        "ayafileio, O_DIRECT and fallocate by hand",
        "library",
        "bench.harness.peers.offset_files:with_ayafileio_direct",
        OPEN_TO_CLOSE,
        FSYNCED,
        note="its caller opens with O_DIRECT, reserves the blocks and aligns the memory, so the "
        "kernel has the same to do as for slots; nothing is published by a rename",
    ),
)
