"""How workers end, are killed and are replaced, and that their clients hardly notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import StartUringd, UringdCommand
    from tests.uringd.cli.workers.conftest import Workers

    ServeWorkers = Callable[..., Workers]

MIB = 1 << 20
ID = "0123456789abcdef" * 2
ENDS_S = 60
STARTS = 200
PUTTERS = 3
REPLACED_TIMES = 2

Content = Callable[[int], bytes]


def feed(process: subprocess.Popen[str], data: bytes) -> None:
    """Write to a process's standard input and leave it open."""
    assert process.stdin is not None
    view = memoryview(data)
    while view:
        view = view[os.write(process.stdin.fileno(), view) :]


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_put_goes_on_when_its_worker_is_killed(
    serve_workers: ServeWorkers, start_uringd: StartUringd, content: Content, lanes: int
) -> None:
    workers, data = serve_workers(), content(24 * MIB + 7)
    put = start_uringd(*("put", "-", workers.server.tcp, "--name", "x", "--lanes", lanes, "--json"))
    feed(put, data[: 10 * MIB])
    upload_id = await workers.until_upload(8 * MIB)
    workers.kill(await workers.until_holder(upload_id))
    feed(put, data[10 * MIB : 11 * MIB])
    await workers.until_upload(10 * MIB)  # with a source that is silent
    workers.kill(await workers.until_holder(upload_id))
    feed(put, data[11 * MIB :])
    assert put.stdin is not None
    put.stdin.close()
    put.stdin = None
    stdout, stderr = put.communicate(timeout=ENDS_S)
    assert put.returncode == 0, stderr
    assert json.loads(stdout)["resumed"] >= 1
    assert (workers.server.root / "x").read_bytes() == data
    await workers.until_event("worker started", 4)
    deaths = workers.events("worker died")
    assert {death["cause"] for death in deaths} == {"was killed by SIGKILL"}


async def test_replacing_all_workers_under_load_fails_no_put(
    serve_workers: ServeWorkers, start_uringd: StartUringd, content: Content, tmp_path: Path
) -> None:
    workers = serve_workers()
    source = tmp_path / "source"
    source.write_bytes(content(16 * MIB + 3))
    old, enough, done = set(workers.pids), False, 0

    async def put_again_and_again(putter: int) -> None:
        nonlocal done
        number = 0
        while not enough:
            number += 1
            name = f"{putter}-{number}"
            url = workers.server.tcp if number % 2 else workers.server.unix
            put = start_uringd("put", source, url, "--name", name, "--lanes", 1 + putter)
            said = await trio.to_thread.run_sync(partial(put.communicate, timeout=ENDS_S))
            assert put.returncode == 0, said
            published = workers.server.root / name
            assert published.read_bytes() == source.read_bytes()
            published.unlink()
            done += 1

    async with trio.open_nursery() as nursery:
        for putter in range(PUTTERS):
            nursery.start_soon(put_again_and_again, putter)
        for times in range(1, REPLACED_TIMES + 1):
            workers.server.process.send_signal(signal.SIGHUP)
            await workers.until_event("workers replaced", times)
        enough = True
    assert done >= PUTTERS
    assert old.isdisjoint(workers.pids) and len(workers.pids) == 2
    assert workers.server.spool == []


async def test_what_a_replaced_worker_had_is_parked_and_goes_on_at_another(
    serve_workers: ServeWorkers, content: Content, tmp_path: Path
) -> None:
    config = tmp_path / "short.toml"
    config.write_text("shutdown_timeout_s = 0.0\n")
    workers, data = serve_workers("--config", config), content(2 * MIB)
    async with workers.peer() as (first, hello):
        handle = await first.create("x", upload_id=ID)
        await first.fill(handle, data[:MIB])
        workers.server.process.send_signal(signal.SIGHUP)
        assert await first.last_words() is None
        assert len(first.shutdowns) == 1
    await workers.until_event("workers replaced")
    async with workers.peer(but={hello.instance_id}) as (second, _):
        reply = await second.resume(ID, 1, join=True)
        assert [(part.offset, part.length) for part in reply.durable] == [(0, MIB)]
        await second.fill(reply.upload, data, MIB)
        await second.commit(reply.upload, len(data))
    assert (workers.server.root / "x").read_bytes() == data


async def test_a_term_signal_ends_all_workers_and_keeps_what_was_unfinished(
    serve_workers: ServeWorkers, content: Content, tmp_path: Path
) -> None:
    workers = serve_workers("--workers", 3)
    process = workers.server.process
    async with workers.peer() as (peer, _):
        handle = await peer.create("x", upload_id=ID)
        await peer.fill(handle, content(MIB))
        pids = workers.pids
        assert len(pids) == 3
        process.terminate()
        assert (await workers.refusal()).code is ErrorCode.SHUTTING_DOWN
        assert process.poll() is None, "it waits for the upload"
        process.terminate()
        assert await peer.last_words() is None
    assert process.wait(timeout=ENDS_S) == 0
    assert workers.pids == []
    assert workers.server.spool == [f"{ID}.part"]
    assert not (tmp_path / "served.sock").exists()
    assert os.listdir(workers.server.root / ".uringd" / "workers") == []


async def test_workers_leave_when_their_supervisor_is_killed_and_the_next_server_starts(
    serve_workers: ServeWorkers, content: Content
) -> None:
    workers, data = serve_workers(), content(2 * MIB)
    async with workers.peer() as (peer, _):
        handle = await peer.create("x", upload_id=ID)
        await peer.fill(handle, data[:MIB])
        pids = workers.pids
        workers.server.process.kill()
        assert await peer.last_words() is None, "it was parked"
    await workers.until_gone()
    assert len(pids) == 2
    again = serve_workers()
    async with again.peer() as (peer, _):
        reply = await peer.resume(ID, 1)
        assert [(part.offset, part.length) for part in reply.durable] == [(0, MIB)]
        await peer.fill(reply.upload, data, MIB)
        await peer.commit(reply.upload, len(data))
    assert (workers.server.root / "x").read_bytes() == data


async def test_no_server_starts_beside_a_worker_that_outlives_its_supervisor(
    serve_workers: ServeWorkers, uringd: UringdCommand, tmp_path: Path
) -> None:
    workers = serve_workers()
    stopped = workers.pids[0]
    os.kill(stopped, signal.SIGSTOP)
    workers.server.process.kill()
    workers.server.process.wait(timeout=ENDS_S)
    try:
        listen = ("--listen", f"unix://{tmp_path}/s")
        done = uringd("serve", "--root", workers.server.root, *listen)
        assert (done.returncode, done.stdout) == (5, "")
        assert "another uringd serves" in done.stderr
    finally:
        os.kill(stopped, signal.SIGCONT)
    await workers.until_gone()


async def test_what_a_killed_worker_had_not_recorded_no_longer_counts_against_the_quota(
    serve_workers: ServeWorkers, content: Content, tmp_path: Path
) -> None:
    config = tmp_path / "lazy.toml"
    config.write_text("checkpoint_s = 3600.0\n")
    workers = serve_workers("--config", config, "--spool-max", 8 * MIB)
    async with workers.peer() as (peer, _):
        handle = await peer.create("x", upload_id=ID)
        await peer.fill(handle, content(6 * MIB))
        workers.kill(await workers.until_holder(ID))
    await workers.until_event("worker started", 3)
    async with workers.peer() as (peer, _):
        reply = await peer.resume(ID, 1)
        assert not reply.durable
        await peer.create("y", size=8 * MIB)
