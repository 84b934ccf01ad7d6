"""What a guest's server was asked and has acknowledged, and what must be there after a cut.

PROTOCOL.md, "Ordering and durability", said as a judgement. Nothing here looks at a disk.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.crash.ledger import BrokenPromiseError
from uringd.wire import crc32c

if TYPE_CHECKING:
    from uringd.client import Receipt


OF_THE_CLIENT = ("sent_bytes", "resumed", "lanes")
"""What a client adds to the server's Receipt, from its own counts."""


@dataclass(eq=False)
class Attempt:
    """A file that is to be: its content, what was asked for it, the most that was acknowledged."""

    name: str
    content: memoryview
    level: str  # published, durable, written
    upload_id: str = ""  # empty: a PUT, which nobody can go on with
    durable: int = 0
    """The highest position, in bytes, that SYNC, ACK or RESUME has called durable."""
    committing: bool = False
    """COMMIT or PUT may have been sent."""
    acknowledged: bool = False
    """It was answered: the Receipt came."""
    receipt: Receipt | None = None
    """COMMIT's. A PUT's need not be recorded, and is not asked for again."""
    aborting: bool = False
    """ABORT may have been sent: nothing is promised of it any more."""

    @property
    def is_given_up(self) -> bool:
        """Whether it may be there or not, with any content: COMMIT at WRITTEN ends what SYNC said.

        Before its answer as much as after it: the server may have done it.
        """
        return self.level == "written" and self.committing

    @property
    def keeps_name(self) -> bool:
        """Whether its name must be there.

        At DURABLE the name may be lost with the power, and a server that finds the bytes gives it
        again: it finds those of an upload, which has a record, and not those of a PUT.
        """
        if not self.acknowledged:
            return False
        return self.level == "published" or (self.level == "durable" and self.upload_id != "")

    @property
    def promised(self) -> int:
        """How many bytes an upload that is unfinished must have durable."""
        return 0 if self.is_given_up or self.aborting else self.durable

    def hear(self, durable: int) -> None:
        """Take a position that the server called durable."""
        self.durable = max(self.durable, durable)

    def judge_name(self, size: int | None, crc: int) -> None:
        """Hold what has its name, or nothing (`size` is None), against it.

        Raises BrokenPromiseError.
        """
        if size is None:
            if self.keeps_name:
                raise BrokenPromiseError(
                    f"{self.name} was acknowledged as {self.level}, and is not there"
                )
            return
        if not self.committing:
            raise BrokenPromiseError(f"{self.name} is visible, and nobody has committed it")
        whole = (len(self.content), crc32c(self.content))
        if (size, crc) != whole and not self.is_given_up:
            raise BrokenPromiseError(
                f"{self.name} ({self.level}) is visible with {size:,} bytes and CRC32C {crc:08x}; "
                f"{whole[0]:,} bytes with {whole[1]:08x} were sent"
            )

    def judge_durable(self, durable: int) -> None:
        """Hold what RESUME answers against it. Raises BrokenPromiseError."""
        if durable < self.promised:
            raise BrokenPromiseError(
                f"{self.name}: {self.promised:,} bytes were acknowledged as durable, and RESUME "
                f"says {durable:,}"
            )

    def judge_spooled(self, found: bytes) -> None:
        """Hold the first bytes of its spool file against it. Raises BrokenPromiseError."""
        content = self.content[: self.promised]
        if found[: len(content)] == content:
            return
        same = next(
            (at for at, (a, b) in enumerate(zip(found, content, strict=False)) if a != b),
            min(len(found), len(content)),
        )
        raise BrokenPromiseError(
            f"{self.name}: {self.promised:,} bytes were acknowledged as durable, and on the disk "
            f"they are others from byte {same:,} of {len(found):,} on"
        )

    def judge_receipt(self, again: Receipt) -> None:
        """Hold the answer of a repeated COMMIT against the first one. Raises BrokenPromiseError."""
        if self.receipt is None:
            return
        first, second = (
            {key: value for key, value in asdict(receipt).items() if key not in OF_THE_CLIENT}
            for receipt in (self.receipt, again)
        )
        if first != second:
            raise BrokenPromiseError(
                f"{self.name}: its Receipt was {first}, and after the cut it is {second}"
            )
