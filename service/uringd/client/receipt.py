"""What a commit came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uringd.wire import Durability

if TYPE_CHECKING:
    from uringd.v1 import uringd_pb2 as pb


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit came to.

    `size` and `sent_bytes` (payload, with what was sent again) are in bytes, `crc32c` and
    `instance_id` in hexadecimal. `durability` is what holds now; `backend`, `direct` and
    `transport` say how the bytes were written and how they came. `resumed` counts the times that
    this client took the upload up again, `lanes` the connections that it filled it by.
    """

    upload_id: str
    name: str
    size: int
    crc32c: str
    durability: str
    backend: str
    direct: bool
    transport: str
    seconds: float
    sent_bytes: int
    instance_id: str
    resumed: int
    lanes: int


def read_receipt(reply: pb.Receipt, *, sent_bytes: int, resumed: int, lanes: int) -> Receipt:
    """Put the server's receipt and our own counts together."""
    return Receipt(
        upload_id=reply.upload_id,
        name=reply.name,
        size=reply.size,
        crc32c=f"{reply.crc32c:08x}",
        durability=Durability(reply.durability).name.lower(),
        backend=reply.backend,
        direct=reply.direct,
        transport=reply.transport,
        seconds=reply.seconds,
        sent_bytes=sent_bytes,
        instance_id=reply.instance_id.hex(),
        resumed=resumed,
        lanes=lanes,
    )
