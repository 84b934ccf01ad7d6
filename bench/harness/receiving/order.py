"""One measurement of a way to receive: what it is told, and what it tells back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

from bench.harness.units import MIB, size_text

Transport = Literal["tcp", "unix"]

SLOT_BYTES = 2 * MIB
"""A chunk of the service: see SLOT_BYTES_DEFAULT in uringd/config.py."""

POOL_BYTES = 32 * MIB
"""Slots in all, as the service has them (SLOTS_WANTED): with smaller slots there are more."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a way has to do. `buffer_bytes` is asked of both sockets, 0 leaves them as they are."""

    transport: Transport
    writes: bool
    slot_bytes: int = SLOT_BYTES
    buffer_bytes: int = 0

    @property
    def name(self) -> str:
        """In a line: tcp, written, 2 MiB."""
        what = "written" if self.writes else "not written"
        buffers = f", buffers {size_text(self.buffer_bytes)}" if self.buffer_bytes else ""
        return f"{self.transport}, {what}, {size_text(self.slot_bytes)}{buffers}"


@dataclass(frozen=True, slots=True)
class Order:
    """Receive `total_bytes` by `way`; what is written goes to a new file in `directory`."""

    way: str
    setting: Setting
    total_bytes: int
    directory: str

    def to_json(self) -> str:
        """As a child's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"setting": Setting(**fields["setting"])}))


@dataclass(frozen=True, slots=True)
class Received:
    """What one measurement found, from the first byte to the last one that is where it belongs.

    CPU seconds are the receiver's with its io-wq workers; `sender_cpu_s` the sender's. `calls` are
    receives that were asked of the kernel, `sleeps` the voluntary context switches meanwhile.
    """

    seconds: float
    user_s: float
    system_s: float
    sender_cpu_s: float
    calls: int
    sleeps: int
    others_s: float

    @property
    def cpu_s(self) -> float:
        """User and system together."""
        return self.user_s + self.system_s

    def to_json(self) -> str:
        """As the child's only line on stdout."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))
