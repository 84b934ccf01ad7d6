"""A guest under qemu: booted once, woken again and again, told what to do, and cut off.

Booting takes longer than a round of a campaign. So a guest that has booted, and has not mounted its
disk yet, is written to a file as a migration would send it, and each round begins there. What its
kernel had read of the disk to look for partitions, it forgot when it closed the disk.

What a cut is: SIGKILL for qemu. All that the guest had in memory is gone: its page cache, its
journal's open transaction, the requests that its driver had queued. The disk is a file of the host
with cache=writeback: the guest sees a disk with a volatile cache and has to flush it, and what it
has written is in the host's page cache.

What a cut is not: the host lives on, and so does its page cache. What the guest's disk had taken
stays, flushed or not, so a flush that is missing is not found out here unless the bytes were still
in the guest. A device's own volatile cache, whose loss is decided write by write, is what the block
logs try (tests/powercut).
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MEMORY_MIB = 1536
"""The userland is unpacked into it, and python runs in what is left."""

BOOT_S = 300.0
"""Software emulation on a busy machine."""

COMMAND_S = 600.0
SAID_MAX = 1 << 20
"""What one command may say on the console, in bytes."""


class GuestError(Exception):
    """The guest did not do what it was to do: the sentence has its last words."""


@dataclass(frozen=True)
class Guest:
    """What is booted, on which disk; connections to a port of the host end at `port` in it."""

    kernel: Path
    initramfs: Path
    disk: Path
    port: int


class Machine:
    """A guest that runs. `port` of the host leads to its own."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self._process = process
        self._said = b""
        self.port = port

    async def run(
        self,
        command: str,
        timeout_s: float = COMMAND_S,
        tell: Callable[[str], object] = lambda _piece: None,
    ) -> str:
        """Run a line of shell; the result is what it said, and `tell` hears it as it comes.

        Raises GuestError.
        """
        assert "\n" not in command, "a command is a line"
        assert self._process.stdin is not None
        self._said = b""
        # The first byte that reaches a guest that was woken can get lost in its serial port.
        await self._process.stdin.send_all(b"   " + command.encode() + b"\n")
        said = await self.wait_for(b"guest-ended ", timeout_s, tell)
        code = int((await self.wait_for(b"\n", timeout_s)).strip() or b"0")
        text = said.decode(errors="replace").replace("\r", "")
        if code:
            raise GuestError(f"{command!r} ended with {code}: {text[-500:]}")
        return text

    async def wait_for(
        self,
        mark: bytes,
        timeout_s: float,
        tell: Callable[[str], object] = lambda _piece: None,
    ) -> bytes:
        """Read the console until it has said `mark`; the result is what stood before it."""
        assert self._process.stdout is not None
        with trio.move_on_after(timeout_s):
            while mark not in self._said:
                piece = await self._process.stdout.receive_some()
                if not piece or len(self._said) > SAID_MAX:
                    break
                self._said += piece
                tell(piece.decode(errors="replace"))
        before, found, self._said = self._said.partition(mark)
        if not found:
            last = before[-500:].decode(errors="replace")
            raise GuestError(
                f"the guest did not say {mark.decode()!r} in {timeout_s:.0f} s: {last}"
            )
        return before

    def cut(self) -> None:
        """Take the power away."""
        self._process.send_signal(signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(guest: Guest, state: Path | None = None) -> AsyncIterator[Machine]:
    """Boot a guest, or wake one from its `state`; it is killed when the block is left."""
    options = ("-incoming", f"exec:cat {state}") if state is not None else ()
    async with _started(guest, *options) as machine:
        if state is None:
            await machine.wait_for(b"guest-ready", BOOT_S)
            await machine.wait_for(b"\n", BOOT_S)
        yield machine


async def save(guest: Guest, state: Path, prepare: str) -> None:
    """Boot a guest, `prepare` it by a command, and write it to `state` as it stands then."""
    control = state.with_suffix(".qmp")
    async with _started(guest, "-qmp", f"unix:{control},server=on,wait=off") as machine:
        await machine.wait_for(b"guest-ready", BOOT_S)
        await machine.run(prepare)
        async with await trio.open_unix_socket(str(control)) as stream:
            await _ask(stream, {"execute": "qmp_capabilities"})
            uri = f"exec:cat > {state}.partial"
            await _ask(stream, {"execute": "migrate", "arguments": {"uri": uri}})
            with trio.fail_after(BOOT_S):
                while True:
                    answer = await _ask(stream, {"execute": "query-migrate"})
                    if answer.get("status") in {"completed", "failed"}:
                        break
                    await trio.sleep(0.2)
        if answer["status"] != "completed":
            raise GuestError(f"the guest's state cannot be saved: {answer}")
    Path(f"{state}.partial").rename(state)
    control.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _started(guest: Guest, *options: str) -> AsyncIterator[Machine]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=multi", "-smp", "2"]
    command += ["-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-no-reboot", "-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)]
    command += ["-append", "console=ttyS0 panic=-1 quiet", "-serial", "stdio"]
    command += ["-drive", f"file={guest.disk},if=virtio,format=raw,cache=writeback"]
    forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:{guest.port}"
    command += ["-netdev", forward, "-device", "virtio-net-pci,netdev=net,romfile="]
    process = await trio.lowlevel.open_process(
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Machine(process, port)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _ask(stream: trio.SocketStream, request: dict[str, Any]) -> dict[str, Any]:
    """Ask qemu by QMP (its greeting and events are skipped)."""
    await stream.send_all(json.dumps(request).encode() + b"\n")
    said = b""
    with trio.fail_after(BOOT_S):
        while True:
            said += await stream.receive_some()
            for line in said.splitlines():
                with contextlib.suppress(ValueError):
                    answer = json.loads(line)
                    if "error" in answer:
                        raise GuestError(f"qemu refuses {request['execute']}: {answer['error']}")
                    if "return" in answer:
                        found: dict[str, Any] = answer["return"]
                        return found
