"""Credit: how many slots a client may still fill. PROTOCOL.md, "Flow control".

Two ends of one count. The server's is the law; the client's is what it has been told. Credit is
granted by HELLO, used by each DATA, and comes back in ACK when the slot is free.
"""

from uringd.wire.codes import CREDIT_MAX, ErrorCode
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError


class SendCredit:
    """The client's end: how many DATA frames it may send now."""

    def __init__(self, credit: int = 0) -> None:
        self.available = 0
        self.replenish(credit)

    def replenish(self, count: int) -> None:
        """Add what HELLO granted or an ACK returned.

        Raises RemoteProtocolError (BAD_FRAME) if the sum cannot be that of a server's slots.
        """
        if count < 0 or self.available + count > CREDIT_MAX:
            raise RemoteProtocolError(
                ErrorCode.BAD_FRAME, f"{self.available} + {count} slots of credit cannot be"
            )
        self.available += count

    def consume(self) -> None:
        """Take one slot's credit for a DATA frame. Raises LocalProtocolError if there is none."""
        if not self.available:
            raise LocalProtocolError("no credit: wait for an ACK before sending DATA")
        self.available -= 1


class ReceiveCredit:
    """The server's end: how many slots the client has filled of those it was granted."""

    def __init__(self, credit: int) -> None:
        if not 0 < credit <= CREDIT_MAX:
            raise LocalProtocolError(f"a session's credit is 1 to {CREDIT_MAX:,}, not {credit}")
        self.granted = credit
        self.used = 0

    @property
    def available(self) -> int:
        """Slots the client may still fill."""
        return self.granted - self.used

    def consume(self) -> None:
        """Count one DATA frame.

        Raises RemoteProtocolError (CREDIT_EXCEEDED) if the client had no credit: it costs the
        connection.
        """
        if self.used == self.granted:
            raise RemoteProtocolError(
                ErrorCode.CREDIT_EXCEEDED, f"DATA with all {self.granted} slots of credit in use"
            )
        self.used += 1

    def release(self, count: int = 1) -> None:
        """Give back the credit of count slots that are free; the caller says so in an ACK.

        Raises LocalProtocolError if fewer are in use.
        """
        if not 0 <= count <= self.used:
            raise LocalProtocolError(f"{count} slots of credit released, {self.used} are in use")
        self.used -= count
