"""What can go wrong for a client: a small tree that says whose turn it is.

ClientError
  RefusedError          the server said no: `code`, and `retryable` as its table has it
  ConnectionLostError   no server, or none any more: `upload_id` names what was under way
  SourceError           the data to be sent could not be read, or changed meanwhile
"""

from __future__ import annotations

from uringd.wire import ErrorCode, is_retryable, next_step


class ClientError(Exception):
    """The base of everything that the client raises on its own account."""


class RefusedError(ClientError):
    """The server refused; the text is its own, with what to do next."""

    def __init__(
        self,
        code: ErrorCode,
        text: str,
        offset: int | None = None,
        missing: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(code, text, offset, missing)
        self.code = code
        self.text = text
        self.offset = offset
        self.missing = missing

    @property
    def retryable(self) -> bool:
        """Whether doing `next_step` is expected to succeed without anybody's help."""
        return is_retryable(self.code)

    def __str__(self) -> str:
        return f"{self.text} ({self.code.name}): {next_step(self.code)}"


class ConnectionLostError(ClientError):
    """The server cannot be reached, or the connection to it broke."""

    def __init__(self, text: str, upload_id: str = "") -> None:
        super().__init__(text, upload_id)
        self.text = text
        self.upload_id = upload_id

    def __str__(self) -> str:
        return self.text


class SourceError(ClientError):
    """The data to be sent could not be read to its end."""
