"""What can go wrong for a client: a small tree that says whose turn it is.

ClientError
  RefusedError          the server said no: `code`, and `retryable` as its table has it
  ConnectionLostError   no server, or none any more: `upload_id` names what was under way
  SourceError           the data to be sent could not be read, or changed meanwhile

`retryable` says whether the same again is expected to succeed without anybody's help. Where the
server offers `resume`, an upload does so by itself, and these errors come when its patience is over
(`retry_s`); then `Client.resume` goes on with the upload that `upload_id` names.
"""

from __future__ import annotations

from uringd.wire import ErrorCode, is_retryable, next_step

PASSING = frozenset(
    {
        ErrorCode.TIMEOUT,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.BUSY,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.BAD_CHECKSUM,
    }
)
"""What a new connection after a wait is expected to mend. Other retryable codes ask for something
else first: fewer uploads, missing ranges."""


class ClientError(Exception):
    """The base of everything that the client raises on its own account."""

    @property
    def retryable(self) -> bool:
        """Whether the same again is expected to succeed without anybody's help."""
        return False

    @property
    def passing(self) -> bool:
        """Whether a new connection, after a wait, is expected to mend it."""
        return False


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

    @property
    def passing(self) -> bool:
        """Whether a new connection, after a wait, is expected to mend it."""
        return self.code in PASSING

    def __str__(self) -> str:
        return f"{self.text} ({self.code.name}): {next_step(self.code)}"


class ConnectionLostError(ClientError):
    """The server cannot be reached, or the connection to it broke."""

    def __init__(self, text: str, upload_id: str = "") -> None:
        super().__init__(text, upload_id)
        self.text = text
        self.upload_id = upload_id

    @property
    def retryable(self) -> bool:
        """Yes: connect again, and resume the upload or begin it anew."""
        return True

    @property
    def passing(self) -> bool:
        """Yes."""
        return True

    def __str__(self) -> str:
        return self.text


class SourceError(ClientError):
    """The data to be sent could not be read to its end, or is not what it was."""
