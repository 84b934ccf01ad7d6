"""`uringd serve` where the kernel refuses io_uring, at once or now and then (strace injects it)."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import uringio
from tests.lacking import lacking, need_tool
from uringd.client import connect

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, StartUringd

ENDS_S = 60
OPTIONS = ("--slots", "8", "--slot-bytes", 64 << 10, "--log-format", "json")
CONTENT = random.Random(1).randbytes((1 << 20) + 77)

Log = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def needs_strace_and_a_ring() -> None:
    need_tool("strace")
    if not uringio.probe().available:
        lacking(f"there is no io_uring to take away: {uringio.probe().reason}")


def injecting(trace: Path, *faults: str) -> tuple[str, ...]:
    """Run under strace, which has system calls fail; the process started is the server itself."""
    injected = [word for fault in faults for word in ("-e", f"inject={fault}")]
    return ("strace", "-D", "-f", "-qq", "-o", str(trace), *injected)


@pytest.mark.parametrize(
    ("fault", "backend", "said"),
    [
        ("io_uring_setup:error=ENOSYS", "threads", "io_uring"),
        ("io_uring_setup:error=EPERM", "threads", "io_uring"),
        ("io_uring_setup:error=ENOMEM", "threads", "io_uring"),
        ("io_uring_register:error=ENOMEM", "threads", "RLIMIT_MEMLOCK"),
        ("io_uring_enter:error=EAGAIN:when=3+5", "io_uring", ""),
        ("io_uring_enter:error=EBUSY:when=3+5", "io_uring", ""),
        ("io_uring_enter:error=EINTR:when=3+5", "io_uring", ""),
    ],
)
async def test_uploads_are_whole_and_what_could_not_be_had_is_said(
    serve_process: ServeProcess,
    server_log: Log,
    tmp_path: Path,
    fault: str,
    backend: str,
    said: str,
) -> None:
    trace = tmp_path / "trace"
    server = serve_process(*OPTIONS, prefix=injecting(trace, fault))
    async with connect(server.unix) as client, client.upload("file") as upload:
        await upload.write(CONTENT)
        receipt = await upload.commit()
    assert receipt.backend == backend
    assert (server.root / "file").read_bytes() == CONTENT
    notes = [e["reason"] for e in server_log() if e["event"] == "not what was asked for"]
    assert any("io_uring" in note or "RLIMIT" in note for note in notes) == bool(said)
    assert said in " ".join(notes)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=ENDS_S) == 0
    assert "INJECTED" in trace.read_text()
    assert "Traceback" not in (tmp_path / "server.log").read_text()
    assert server.spool == []


def test_who_insists_on_io_uring_is_refused_with_the_reason(
    start_uringd: StartUringd, tmp_path: Path
) -> None:
    process = start_uringd(
        *("serve", "--root", tmp_path / "root", "--listen", f"unix://{tmp_path}/s"),
        *("--backend", "io_uring"),
        prefix=injecting(tmp_path / "trace", "io_uring_setup:error=EPERM"),
    )
    stdout, stderr = process.communicate(timeout=ENDS_S)
    assert (process.returncode, stdout) == (5, "")
    assert "no io_uring (EPERM)" in stderr
    assert "Traceback" not in stderr
