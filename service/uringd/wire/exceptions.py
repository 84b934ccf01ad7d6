"""Whose fault it is: ours (Local) or the peer's (Remote). PROTOCOL.md, "Errors"."""

from uringd.wire.codes import ErrorCode


class ProtocolError(Exception):
    """What was asked of the protocol, or what it was given, breaks its rules."""


class LocalProtocolError(ProtocolError):
    """This side tried something that the protocol does not allow: a bug here, nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules. A server answers with ERROR of this code and text.

    Raised by a Connection it has cost the connection; raised by the small helpers (names, credit)
    the caller decides, by PROTOCOL.md, whether it costs the request, the upload or the session.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code.name}: {self.text}"


class BadNameError(RemoteProtocolError):
    """A name that cannot be that of a file below the root. It costs the request."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.BAD_NAME, text)

    def __reduce__(self) -> tuple[type["BadNameError"], tuple[str]]:
        return BadNameError, (self.text,)
