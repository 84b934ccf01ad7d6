"""Which servers take part, how each is set up and loaded, and what holds when it has answered."""

from __future__ import annotations

from bench.harness.contender import Contender

DISK = "disk"
TCP = "uringd"
UNIX = "uringd-socket"
WORKERS = "uringd-workers"
SMALL, PIPELINED, SMALL_WORKERS = "uringd-small", "uringd-pipelined", "uringd-small-2"
COPY, SEALED, SLAB = "uringd-copy", "uringd-sealed", "uringd-slab"
RECV = "recv-fsync"
LOOP = "files-loop"
NGINX, NGINX_SYNCED = "nginx", "nginx-synced"
NGINX_ONE, NGINX_ONE_SYNCED = "nginx-one", "nginx-one-synced"
WRK = "nginx-wrk"
RSYNC = "rsync"
STARLETTE, STARLETTE_SYNCED = "starlette", "starlette-synced"
TUS, TUS_SYNCED = "tus", "tus-synced"

PUT = "first byte to last answer; HTTP PUT by our own generator (one thread, epoll, sendfile)"
CLIENT = "first CREATE to last receipt; uringd's own client, all connections in one process"
REQUESTS = "first request to last receipt; uringd's own client, put_many, all in one process"
PATCHES = "first POST to last answer; a thread of tuspy for each connection, 64 MiB a PATCH"
FEWER = "it has a connection for every 64 of the cell's, and one at the least"
PUBLISHED = "file fsynced, renamed, directory fsynced"
FSYNCED = "file fsynced, its name not"
NOTHING = "nothing: a power cut takes it back"
SYNCED = "all of it, once the file system was synced at the end, inside the time"


def _ours(name: str, title: str, function: str, timed: str = CLIENT, note: str = "") -> Contender:
    run = f"bench.harness.ingest.uringd:{function}"
    return Contender(name, title, "ours", run, timed, PUBLISHED, uploads=True, note=note)


def _plain(name: str, title: str, function: str, timed: str, durable: str) -> Contender:
    run = f"bench.harness.ingest.plain:{function}"
    return Contender(name, title, "plain", run, timed, durable, uploads=True)


def _server(
    name: str, title: str, function: str, durable: str, timed: str = PUT, note: str = ""
) -> Contender:
    return Contender(
        name,
        title,
        "server",
        f"bench.harness.ingest.{function}",
        timed,
        durable,
        uploads=True,
        survives=durable != NOTHING,
        note=note,
    )


INGEST = (
    Contender(
        DISK,
        "the disk by fio, O_DIRECT, 1 MiB, QD16",
        "yardstick",
        "bench.harness.ingest.yardstick:disk",
        "its own runtime, with end_fsync, without start, creation and fallocate",
        "file fsynced",
        checked=False,
    ),
    _ours(TCP, "uringd, TCP", "over_tcp"),
    _ours(UNIX, "uringd, Unix socket", "over_unix"),
    _ours(WORKERS, "uringd, TCP, 2 workers", "two_workers"),
    _ours(SMALL, "uringd, TCP, whole files, one at a time", "small", REQUESTS),
    _ours(PIPELINED, "uringd, TCP, whole files, 64 in flight", "pipelined", REQUESTS, FEWER),
    _ours(SMALL_WORKERS, "the same, one at a time, 2 workers", "small_two_workers", REQUESTS),
    _ours(COPY, "uringd, shared memory, copy", "copied"),
    _ours(SEALED, "uringd, shared memory, sealed", "sealed"),
    _ours(SLAB, "uringd, shared memory, slab", "slab"),
    _plain(
        LOOP,
        "write, fsync, rename, fsync of the directory, one file after another",
        "files_loop",
        "all of it, in this process: nothing is sent",
        PUBLISHED,
    ),
    _plain(RECV, "recv + os.write + fsync", "recv_write_fsync", PUT, FSYNCED),
    _server(NGINX_SYNCED, "nginx PUT, 2 workers, + sync", "nginx:two_workers_synced", SYNCED),
    _server(NGINX_ONE_SYNCED, "nginx PUT, 1 worker, + sync", "nginx:one_worker_synced", SYNCED),
    _server(NGINX, "nginx PUT, 2 workers, not synced", "nginx:two_workers", NOTHING),
    _server(NGINX_ONE, "nginx PUT, 1 worker, not synced", "nginx:one_worker", NOTHING),
    _server(
        WRK,
        "nginx PUT, 2 workers, not synced, by wrk",
        "wrk:two_workers",
        NOTHING,
        timed="2 s of wrk, one thread, always 32 connections, scaled to the cell's uploads",
        note="wrk keeps 32 connections, whatever the cell has",
    ),
    _server(
        RSYNC,
        "rsync daemon, --fsync",
        "rsync:daemon",
        FSYNCED,
        timed="start of the clients, one for each connection, to the end of the last",
    ),
    _server(STARLETTE_SYNCED, "Starlette on uvicorn, fsync", "asgi:starlette_synced", FSYNCED),
    _server(STARLETTE, "Starlette on uvicorn, no fsync", "asgi:starlette", NOTHING),
    _server(TUS_SYNCED, "tuspyserver, LocalFileStorage", "asgi:tus_synced", FSYNCED, timed=PATCHES),
    _server(TUS, "tuspyserver, as it comes", "asgi:tus", NOTHING, timed=PATCHES),
)
