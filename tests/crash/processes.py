"""`uringd serve`, `put` and `abort` in processes of their own, to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import trio

from tests.crash.ledger import BrokenPromiseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from tests.crash.relay import Relay

COMMAND = [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "uringd"]

READY_S = 60
"""From start to the `listening` line: a cold start, and what the last one left to put in order."""
STOP_S = 60
"""From SIGTERM to the end."""
LAST_WORDS_BYTES = 2000
STILL_SERVED = "another uringd serves"


@contextlib.asynccontextmanager
async def started(arguments: list[str], **options: Any) -> AsyncIterator[trio.Process]:
    """Run the command line until the block is left, which kills what still runs."""
    process = await trio.lowlevel.open_process([*COMMAND, *arguments], **options)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int  # negative: the signal
    said: str  # on stderr


async def run(
    arguments: list[str],
    log: Path,
    stdin: IO[bytes] | None = None,
    running: set[trio.Process] | None = None,
) -> Outcome:
    """Run a command to its end; while it runs it is in `running`."""
    with log.open("wb") as out:
        options = {"stdin": stdin or subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        async with started(arguments, **options, stderr=out) as process:
            if running is not None:
                running.add(process)
            try:
                code = await process.wait()
            finally:
                if running is not None:
                    running.discard(process)
    return Outcome(code, log.read_text(errors="replace")[-LAST_WORDS_BYTES:].strip())


class Server:
    """A server that is started again after each end, on the same root, behind the relay."""

    def __init__(self, relay: Relay, root: Path, log: Path, arguments: list[str]) -> None:
        self._relay = relay
        self._log = log
        self._arguments = ["serve", "--root", str(root), "--listen", "tcp://127.0.0.1:0"]
        self._arguments += ["--log-format", "json", *arguments]
        self._process: trio.Process | None = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start it and wait until it listens. Raises BrokenPromiseError when it does not.

        Workers of a killed supervisor leave by themselves, and nobody serves beside them: until
        then it is started again.
        """
        deadline = trio.current_time() + READY_S
        while not (said := await self._started()):
            if STILL_SERVED not in self.last_words() or trio.current_time() > deadline:
                raise BrokenPromiseError(f"the server did not start: {self.last_words()}")
        host, _, port = said.split("tcp://")[1].strip().rpartition(":")
        self._relay.server = (host, int(port))

    async def _started(self) -> str:
        """Start it; the result is the line that says where it listens, or nothing."""
        with self._log.open("ab") as log:
            self._process = await self._stack.enter_async_context(
                started(self._arguments, stdout=subprocess.PIPE, stderr=log)
            )
        assert self._process.stdout is not None
        said = b""
        with trio.move_on_after(READY_S):
            while not said.endswith(b"\n"):
                piece = await self._process.stdout.receive_some()
                if not piece:
                    break
                said += piece
        return said.decode() if said.endswith(b"\n") else ""

    async def kill(self) -> None:
        """Kill -9, and wait until the process is gone."""
        assert self._process is not None
        if self._process.poll() is not None:
            code = self._process.returncode
            raise BrokenPromiseError(f"the server ended by itself ({code}): {self.last_words()}")
        self._relay.server = None
        await self._stack.aclose()

    async def kill_worker(self, random: Random) -> bool:
        """Kill -9 one of the workers; False when none is there. The server has to go on."""
        workers = self._children()
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):  # it was leaving
            os.kill(random.choice(workers), signal.SIGKILL)
        return True

    def replace_workers(self) -> None:
        """Have all workers replaced, one after the other."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _children(self) -> list[int]:
        assert self._process is not None
        children = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    stat = Path(f"/proc/{entry}/stat").read_text()
                    state, parent = stat.rpartition(")")[2].split()[:2]
                    if int(parent) == self._process.pid and state != "Z":
                        children.append(int(entry))
        return sorted(children)

    async def stop(self) -> None:
        """Ask it to end, and expect that it does. Raises BrokenPromiseError."""
        assert self._process is not None
        self._process.terminate()
        with trio.move_on_after(STOP_S):
            await self._process.wait()
        code = self._process.returncode
        await self._stack.aclose()
        if code != 0:
            raise BrokenPromiseError(f"SIGTERM ended the server with {code}: {self.last_words()}")

    async def aclose(self) -> None:
        """Kill it if it still runs."""
        await self._stack.aclose()

    def last_words(self) -> str:
        """What stands at the end of its log."""
        return self._log.read_text(errors="replace")[-LAST_WORDS_BYTES:].strip()
