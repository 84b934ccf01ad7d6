"""What a session owes its client: credit for chunks whose slots are free, and news of positions.

Both are merged: an ACK is cumulative, so all that is due for one upload is one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import RANGES_MAX, ReceiveCredit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uringd.uploads import Upload

ACK_SHARE = 2
"""An acknowledgement is sent when this part of the client's credit has come back: half of it, while
the other half is on its way. A frame costs as much as 100 KiB of payload, most of it in waking the
client."""


class Acknowledgements:
    """Counts a session's credit; `wake` is called when an ACK is due."""

    def __init__(self, credit: int, wake: Callable[[], None]) -> None:
        self._credit = ReceiveCredit(credit)
        self._usable = credit
        self._wake = wake
        self._due: dict[int, int] = {}
        self._due_slots = 0
        self._released: list[int] = []
        self._newest = 0
        self._told = False

    @property
    def granted(self) -> int:
        """Slots of credit that the session has in all."""
        return self._credit.granted

    def lower_usable(self, places: int) -> None:
        """Take note that the client has memory for fewer chunks than it has credit.

        Who kept back half of the credit would then keep back all the places there are.
        """
        self._usable = min(self._usable, places)

    def consume(self, handle: int) -> None:
        """Count a chunk's frame. Raises RemoteProtocolError (CREDIT_EXCEEDED)."""
        self._credit.consume()
        self._newest = handle

    def remind(self) -> bool:
        """Tell a client whose chunks are here, and that has heard nothing since the last call.

        Whether there are such chunks: a slow disk is no idle client.
        """
        waits, told, self._told = self._credit.used > 0, self._told, False
        if waits and not told:
            self.tell(self._newest)
        return waits

    def give_back(self, handle: int, place: int | None = None) -> None:
        """Give back one slot's credit with the next ACK of an upload.

        `place` is where in attached memory the chunk lay: the client may use it again.
        """
        self._credit.release()
        if place is not None:
            self._released.append(place)
        self._due[handle] = self._due.get(handle, 0) + 1
        self._due_slots += 1
        # Few frames for many chunks: but not while the client has no credit at all, and at the
        # latest with the last one, for the client may wait for all of them.
        kept_back, used = self._due_slots, self._credit.used
        has_none = used + kept_back >= self._usable
        if kept_back >= self._usable // ACK_SHARE or has_none or not used:
            self._wake()

    def tell(self, handle: int) -> None:
        """Tell the client an upload's positions, with no credit if none is due."""
        self._due.setdefault(handle, 0)
        self._wake()

    def take(
        self, instance_id: bytes, upload_of: Callable[[int], Upload | None]
    ) -> Iterator[tuple[int, pb.Ack]]:
        """Yield the ACKs that are due, each with its handle: one for each upload that has news."""
        due, self._due, self._due_slots = self._due, {}, 0
        self._told = True
        released, self._released = self._released, []
        for begin in range(RANGES_MAX, len(released), RANGES_MAX):
            more = released[begin : begin + RANGES_MAX]
            yield 0, pb.Ack(instance_id=instance_id, released=more)
        del released[RANGES_MAX:]
        for handle, credit in due.items():
            ack = pb.Ack(instance_id=instance_id, credit=credit, released=released)
            released = []
            upload = upload_of(handle)
            if upload is None:
                yield 0, ack  # an upload that has ended has no positions: credit only
                continue
            ack.accepted, ack.written = upload.accepted, upload.written
            ack.durable = upload.durable
            yield handle, ack
