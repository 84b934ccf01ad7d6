"""HELLO: who is let in, and what is in force for them then. PROTOCOL.md, "HELLO"."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from uringd import __version__
from uringd.config import ALIGNMENT_BYTES
from uringd.placing import offered
from uringd.small.intake import FEATURE as SMALL_FEATURE
from uringd.upload_errors import UploadError
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import SMALL_BYTES_MAX, ErrorCode

if TYPE_CHECKING:
    from uringd.server import Server
    from uringd.session import Session

FEATURES = ("resume", "lanes", "page-checksums", SMALL_FEATURE)
"""What this server has on every connection, beside `placing.offered`."""


def admit(server: Server, hello: pb.Hello, transport: str) -> frozenset[str]:
    """Return the features that a client wants and this server has; lanes need resume.

    Raises UploadError for a token that is not ours. It is compared in constant time.
    """
    ours, theirs = server.settings.token.encode(), hello.token.encode()
    if ours and not hmac.compare_digest(theirs, ours):
        text = "the token is missing or wrong: give the server's --token-file"
        raise UploadError(ErrorCode.UNAUTHORIZED, text)
    features = {*FEATURES, *offered(server, transport)}.intersection(hello.features)
    if "resume" not in features:
        features.discard("lanes")
    return frozenset(features)


def welcome(session: Session) -> pb.HelloReply:
    """Tell an admitted client of the limits, and of what is in force."""
    server, settings = session.server, session.server.settings
    return pb.HelloReply(
        instance_id=server.instance_id,
        server=f"uringd/{__version__}",
        features=sorted(session.features),
        chunk_bytes_max=server.slot_bytes,
        alignment=ALIGNMENT_BYTES,
        credit=session.acks.granted,
        uploads_max=settings.uploads_per_connection_max,
        idle_timeout_ms=int(settings.idle_timeout_s * 1000),
        small_bytes_max=SMALL_BYTES_MAX if SMALL_FEATURE in session.features else 0,
    )
