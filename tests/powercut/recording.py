"""One recording: a disk that logs, a server on it, and everything that is asked of both.

The server lives twice. The first life ends by SIGKILL with uploads unfinished, so that the second
one's start puts things in order on the same log; the second ends by SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.disks.cut_disks import LoggedDisk, logged_disk
from tests.powercut.history import History
from tests.powercut.workload import LIBRARY, SERVED, resume_all, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

FLAG = "-I" if sys.flags.isolated else "-P"
SERVE: tuple[str, ...] = (sys.executable, FLAG, "-m", "uringd", "serve")

READY_S = 60
"""From start to the `listening` line."""
LIFE_S = 120
"""What one life's work may take: a server that stands still fails the recording."""
STOP_S = 60

OPTIONS = ("--slots", "8", "--slot-bytes", str(64 << 10), "--log-format", "json")
CONFIGURATION = "checkpoint_bytes = 65536\ncheckpoint_s = 0.05\n"
"""Many chunks and many checkpoints: as many flushes, and moments, as can be."""


@dataclass
class Recording:
    """A disk's log between two moments, and what was acknowledged in it."""

    disk: LoggedDisk
    history: History = field(default_factory=History)
    began: int = 0
    ended: int = 0


class RecordingError(Exception):
    """The work went wrong without any power cut; the text says how."""


class Recorder:
    """What the workload sees of a recording."""

    def __init__(self, disk: LoggedDisk, history: History) -> None:
        self.history = history
        self.directory = disk.point
        self.url = ""  # of the server that runs
        self.log = disk.log.with_name("server.log")
        self._position = disk.position

    def position(self) -> int:
        """Return the moment it is."""
        return self._position()


def record(directory: Path, kind: str, seed: int, serve: Sequence[str] = SERVE) -> Recording:
    """Record a server's two lives on a new disk below `directory`; the disk is left afterwards.

    Raises LackingError, RecordingError.
    """
    with logged_disk(kind, directory) as disk:
        recording = Recording(disk)
        os.mkdir(disk.point / LIBRARY)
        recorder = Recorder(disk, recording.history)
        configuration = directory / "configuration.toml"
        configuration.write_text(CONFIGURATION)
        # The directory is ours, not the library's to make durable.
        os.sync()
        command = [*serve, "--root", str(disk.point / SERVED), "--listen", "tcp://127.0.0.1:0"]
        command += [*OPTIONS, "--config", str(configuration)]
        recording.began = disk.position()
        trio.run(_live, recorder, command, Random(seed))
        recording.ended = disk.position()
    return recording


async def _live(recorder: Recorder, command: list[str], chance: Random) -> None:
    async with _serving(recorder, command) as process:
        with trio.fail_after(LIFE_S):
            await run(recorder, chance, 0)
        process.kill()
    async with _serving(recorder, command) as process:
        with trio.fail_after(LIFE_S):
            await resume_all(recorder)
            await run(recorder, chance, 1)
        process.terminate()
        with trio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode != 0:
            raise RecordingError(f"SIGTERM ended the server with {process.returncode}")


@contextlib.asynccontextmanager
async def _serving(recorder: Recorder, command: list[str]) -> AsyncIterator[trio.Process]:
    with recorder.log.open("ab") as log:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        said = b""
        with trio.move_on_after(READY_S):
            said = bytes(await process.stdout.receive_some())
        if not said.startswith(b"listening"):
            raise RecordingError(f"the server did not start: {recorder.log.read_text()[-2000:]}")
        recorder.url = said.decode().split()[1]
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    if "Traceback" in (text := recorder.log.read_text(errors="replace")):
        raise RecordingError(f"the server's log has a traceback: {text[-2000:]}")
