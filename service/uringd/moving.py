"""A connection that moves to the process that holds its upload.

Lanes of one upload are judged, written and made durable by one process, whichever accepted them.
The kernel gives a new connection to any worker, and what it is for is known only when it says
RESUME with `join`. Then the socket itself goes to the upload's holder, and with it the few facts of
which a session consists that has done nothing yet but greet. The alternative, each worker writing
what its lanes bring, needs a message to the one that keeps the ranges for every chunk and another
for its completion, and an answer to what a chunk is whose writer was killed between the two. That
is much to get wrong for one upload's sake: uploads are what is spread.

No acknowledged byte depends on the move. The client has been told nothing of the upload by the
process it leaves; if the socket is lost on the way, its connection ends and it joins again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uringd.upload_errors import still_written
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import INSTANCE_ID_BYTES, Connection, FrameType, Role

if TYPE_CHECKING:
    from uringd.session import Session
    from uringd.wire import Control

UNREAD_BYTES_MAX = 16 << 10
"""Bytes behind the RESUME that were received already. A client that has asked much more before it
is answered is not moved: it is told BUSY."""

HELLO_COOKIE = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """A session that was greeted, and its RESUME, which the new process answers."""

    transport: str
    peer: str
    features: tuple[str, ...]
    credit: int
    chunk_bytes_max: int
    upload_id: str
    epoch: int
    cookie: int
    unread: bytes

    @classmethod
    def of(cls, session: Session, event: Control) -> Moved:
        """Take what there is of a session that asks to join an upload.

        Raises UploadError (BUSY) for one that has done, or asked for, more than that.
        """
        unread = session.connection.unread
        if not session.is_untouched or len(unread) > UNREAD_BYTES_MAX:
            raise still_written()
        resume: pb.Resume = event.message
        return cls(
            session.transport,
            session.peer,
            tuple(sorted(session.features)),
            session.acks.granted,
            session.connection.chunk_bytes_max,
            resume.upload_id,
            resume.epoch,
            event.cookie,
            unread,
        )


def retrace(connection: Connection, moved: Moved) -> None:
    """Bring a fresh server's side to where the moved one was: greeted, and a RESUME received.

    The greeting is said again between the two of us, so that the codec's own rules hold and nothing
    but frames has to be carried over.
    """
    client = Connection(Role.CLIENT, chunk_bytes_max=moved.chunk_bytes_max)
    hello = pb.Hello(client="moved", features=moved.features)
    connection.receive_data(client.send_control(FrameType.HELLO, hello, cookie=HELLO_COOKIE))
    connection.next_event()
    reply = pb.HelloReply(
        instance_id=bytes(range(INSTANCE_ID_BYTES)),
        server="moved",
        features=moved.features,
        chunk_bytes_max=moved.chunk_bytes_max,
        alignment=1,
        credit=moved.credit,
        uploads_max=1,
    )
    client.receive_data(connection.send_control(FrameType.HELLO, reply, reply_to=HELLO_COOKIE))
    client.next_event()
    resume = pb.Resume(upload_id=moved.upload_id, epoch=moved.epoch, join=True)
    connection.receive_data(client.send_control(FrameType.RESUME, resume, cookie=moved.cookie))
    if moved.unread:  # nothing would be the end
        connection.receive_data(moved.unread)
