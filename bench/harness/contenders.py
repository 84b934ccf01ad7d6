"""Who takes part. Everything a table or the method says about a contender stands here."""

from __future__ import annotations

from bench.harness.contender import BUFFERED, Contender
from bench.harness.ingest.contenders import INGEST
from bench.harness.peers.contenders import PEERS

FIO = "fio"
FIO_DEEP = "fio-deep"
OS_WRITE = "os-write"
SLOTS = "uringio-slots"
WRITE = "uringio-write"
PWRITE = "uringio-pwrite"
PWRITE_MANY = "uringio-pwrite-many"
PWRITE_APART = "uringio-pwrite-many-apart"
CHAIN = "uringio-chain"
ONE_BY_ONE = "uringio-one-by-one"
THREADS = "uringio-threads"

CREATE_TO_COMMIT = "create to commit"
PUBLISHED = "file fsynced, renamed, directory fsynced"
UPLOADED = "CREATE to receipt, as the server measures"
OPEN_TO_CLOSE = "open to close"
FIO_TIME = "its own runtime, with end_fsync, without start, creation and fallocate"
FSYNCED = "file fsynced"


def _fio(name: str, title: str, engine: str) -> Contender:
    run = f"bench.harness.fio:{engine}"
    return Contender(name, title, "yardstick", run, FIO_TIME, FSYNCED, checked=False)


def _writer(name: str, title: str, function: str) -> Contender:
    """Make a new file by BulkWriter."""
    run = f"bench.harness.library:{function}"
    return Contender(name, title, "ours", run, CREATE_TO_COMMIT, PUBLISHED)


def _without(name: str, what: str, function: str) -> Contender:
    """Do as `uringio-slots` or `uringio-pwrite-many` does, with one choice of ours switched off."""
    run = f"bench.harness.ablations:{function}"
    return Contender(name, f"uringio without {what}", "without", run, CREATE_TO_COMMIT, PUBLISHED)


def _in_place(name: str, title: str, function: str, *, repeats: bool = False) -> Contender:
    """Write into a file that is there, by UringFile."""
    run = f"bench.harness.offsets:{function}"
    return Contender(name, title, "ours", run, OPEN_TO_CLOSE, FSYNCED, repeats=repeats)


def _upload(name: str, title: str, function: str) -> Contender:
    run = f"bench.harness.upload:{function}"
    return Contender(name, title, "ours", run, UPLOADED, PUBLISHED, uploads=True)


def _plain(name: str, title: str, function: str, untimed: str = "") -> Contender:
    run = f"bench.harness.plain:{function}"
    return Contender(name, title, "plain", run, OPEN_TO_CLOSE, FSYNCED, untimed=untimed)


WRITERS = {
    contender.name: contender
    for contender in (
        _fio(FIO, "fio io_uring, O_DIRECT", "io_uring"),
        _fio(FIO_DEEP, "fio io_uring, O_DIRECT, QD256", "io_uring_deep"),
        _fio("fio-libaio", "fio libaio, O_DIRECT", "libaio"),
        _writer(SLOTS, "uringio, slots, size known", "slots_sized"),
        _writer("uringio-unsized", "uringio, slots, size unknown", "slots_unsized"),
        _writer(WRITE, "uringio, write(data), copied", "write_copy"),
        _writer(THREADS, "uringio, slots, thread ring", "slots_threads"),
        _upload("uringd-tcp", "uringd put, TCP loopback", "over_tcp"),
        _upload("uringd-unix", "uringd put, Unix socket", "over_unix"),
        _upload("put-copy", "uringd put, memory copied", "by_copy"),
        _upload("put-sealed", "uringd put, memory sealed", "by_sealed"),
        _upload("put-slab", "uringd put, slab", "by_slab"),
        _upload("put-slab-read-back", "uringd put, slab, read back", "by_slab_read_back"),
        _in_place(PWRITE, "uringio, pwrite, awaited one by one", "pwrite"),
        _in_place(PWRITE_MANY, "uringio, pwrite_many", "pwrite_many", repeats=True),
        _in_place(PWRITE_APART, "uringio, pwrite_many, memory for each", "pwrite_many_apart"),
        _in_place(CHAIN, "uringio, chain: one submission", "chain"),
        _in_place(ONE_BY_ONE, "uringio, one awaited after the other", "one_by_one"),
        _without("no-registered", "registered buffers", "unregistered"),
        _without("no-huge-pages", "huge pages", "small_pages"),
        _without("no-fallocate", "fallocate", "unreserved"),
        _without("no-direct", "O_DIRECT", "buffered"),
        _without("no-batching", "batching", "unbatched"),
        _plain(OS_WRITE, "os.write + fsync", "os_write", untimed=BUFFERED),
        _plain("os-pwrite-direct", "os.pwrite, O_DIRECT, one at a time", "pwrite_direct"),
        _plain("os-pwrite-threads", "os.pwrite, O_DIRECT, thread pool", "pwrite_threads"),
        *PEERS,
    )
}
"""Who writes files here, for this library to be compared with."""

CONTENDERS = WRITERS | {contender.name: contender for contender in INGEST}
assert len(CONTENDERS) == len(WRITERS) + len(INGEST), "two contenders have one name"
