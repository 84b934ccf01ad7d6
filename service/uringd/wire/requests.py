"""Requests without an answer, by their cookie. PROTOCOL.md, "Requests and replies".

The same on both sides: a client's own requests, or a server's client's. Only its size is bounded by
the protocol, so a peer that asks and asks cannot make this grow.
"""

from uringd.wire.codes import REQUESTS_MAX, ErrorCode, FrameType


class OpenRequests:
    """Which cookies are in use, for which type of frame and which upload handle."""

    def __init__(self) -> None:
        self._requests: dict[int, tuple[FrameType, int]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def begin(self, cookie: int, frame_type: FrameType, upload: int) -> None:
        """Count a request; problem_with_request had nothing to say."""
        self._requests[cookie] = (frame_type, upload)

    def end(self, cookie: int) -> None:
        """Forget a request that has been answered."""
        del self._requests[cookie]

    def clear(self) -> None:
        """Forget all: the session is over."""
        self._requests.clear()

    def upload_of(self, cookie: int) -> int:
        """Return the handle in a request's header, 0 if there is no such request."""
        asked = self._requests.get(cookie)
        return 0 if asked is None else asked[1]

    def problem_with_request(self, cookie: int) -> tuple[ErrorCode, str] | None:
        """Say why a request with this cookie cannot be made now, if so."""
        if cookie in self._requests:
            return ErrorCode.OUT_OF_ORDER, f"cookie {cookie:#x} is that of an unanswered request"
        if len(self._requests) >= REQUESTS_MAX:
            return ErrorCode.TOO_MANY_REQUESTS, f"{REQUESTS_MAX} requests are unanswered already"
        return None

    def problem_with_reply(
        self, cookie: int, frame_type: FrameType, upload: int
    ) -> tuple[ErrorCode, str] | None:
        """Say why this answers no request, if so. ERROR answers any."""
        asked = self._requests.get(cookie)
        if asked is None or frame_type not in (asked[0], FrameType.ERROR):
            return ErrorCode.OUT_OF_ORDER, f"cookie {cookie:#x} asks for no {frame_type.name}"
        if upload != asked[1]:
            return (
                ErrorCode.OUT_OF_ORDER,
                f"a reply repeats the handle {asked[1]} of its request, not {upload}",
            )
        return None
