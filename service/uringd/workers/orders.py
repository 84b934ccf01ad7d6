"""What a worker is started with: one line of JSON on its standard input.

Not on its command line: there is a token in it. Descriptors are inherited under their numbers.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from uringd.config import Settings
from uringd.listeners import Listener
from uringd.root import HeldRoot
from uringd.urls import parse_url

READY = b"ready\n"
"""What a worker says on its standard output, once, when it serves."""


@dataclass(frozen=True, slots=True)
class Orders:
    """One worker's orders.

    `worker` is its number, from 1; `row` its row of the accounts in `memory_fd`; `root` what the
    supervisor holds of ROOT; `bus_fd` the directory of the workers' own sockets; `listening_fds`
    the sockets of `settings.listen`, in that order.
    """

    settings: Settings
    log_format: str
    worker: int
    row: int
    root: HeldRoot
    memory_fd: int
    bus_fd: int
    listening_fds: tuple[int, ...]

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors to inherit."""
        held = dataclasses.astuple(self.root)
        return (*held, self.memory_fd, self.bus_fd, *self.listening_fds)

    def encode(self) -> bytes:
        """Make the line."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["root"] = dataclasses.asdict(self.root)
        settings = {
            field.name: getattr(self.settings, field.name) for field in dataclasses.fields(Settings)
        }
        settings["root"] = str(self.settings.root)
        settings["listen"] = [str(url) for url in self.settings.listen]
        return json.dumps(values | {"settings": settings}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Orders:
        """Read the line. Raises ValueError, TypeError, KeyError for what is none."""
        values: dict[str, Any] = json.loads(line)
        settings = values["settings"]
        settings["root"] = Path(settings["root"])
        settings["listen"] = tuple(map(parse_url, settings["listen"]))
        values["settings"] = Settings(**settings)
        values["root"] = HeldRoot(**values["root"])
        values["listening_fds"] = tuple(values["listening_fds"])
        return cls(**values)

    def listeners(self) -> list[Listener]:
        """Take the inherited sockets; their names stay the supervisor's to remove."""
        return [
            Listener(url, trio.SocketListener(_inherited(fd)))
            for url, fd in zip(self.settings.listen, self.listening_fds, strict=True)
        ]


def _inherited(fd: int) -> trio.socket.SocketType:
    return trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
