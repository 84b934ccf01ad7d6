"""The life of a session. PROTOCOL.md, "Phases".

Everything that decides whether a frame may be sent or received now lives here, but for cookies. The
table does not know which side we are: the same rules hold for what we send and for what we get.

Frames cross on the wire. A client may have sent a request before it read SHUTDOWN, so CLOSING takes
the frames that OPEN takes; the server answers with ERROR what it does not begin any more. Only the
end is abrupt: after an ERROR about the session its sender neither sends nor reads another frame.
"""

from enum import IntEnum

from uringd.wire.codes import FrameType
from uringd.wire.header import REQUEST_TYPES

# IntEnum, because these are keys looked up for every frame and an int hashes in C.


class Role(IntEnum):
    """A side of the connection."""

    CLIENT = 1
    SERVER = 2

    @property
    def peer(self) -> "Role":
        """The other side."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(IntEnum):
    """Where a session is in its life."""

    NEW = 1  # nothing sent yet
    GREETED = 2  # HELLO sent, not answered
    OPEN = 3  # HELLO answered
    CLOSING = 4  # SHUTDOWN sent: nothing new begins
    CLOSED = 5  # nothing may be sent any more


class Kind(IntEnum):
    """What a frame does, apart from its type."""

    REQUEST = 1  # asks for a reply: has a cookie
    REPLY = 2  # answers a cookie, by REPLY or by ERROR
    NOTICE = 3  # neither
    END = 4  # ERROR about the session, which it ends


_C = Role.CLIENT
_S = Role.SERVER

_CLIENT_OPEN = [(t, Kind.REQUEST) for t in sorted(REQUEST_TYPES - {FrameType.HELLO})] + [
    (FrameType.DATA, Kind.NOTICE),
    (FrameType.PAGES, Kind.NOTICE),
    (FrameType.PLACED, Kind.NOTICE),
]
_SERVER_OPEN = [(t, Kind.REPLY) for t in sorted(REQUEST_TYPES - {FrameType.HELLO})] + [
    (FrameType.ACK, Kind.NOTICE),
    (FrameType.ERROR, Kind.REPLY),
    (FrameType.ERROR, Kind.NOTICE),
]
_END = {(FrameType.ERROR, Kind.END): State.CLOSED}
_LEAVE = {(FrameType.SHUTDOWN, Kind.NOTICE): State.CLOSING}

Moves = dict[tuple[FrameType, Kind], State]

TRANSITIONS: dict[Role, dict[State, Moves]] = {
    _C: {
        State.NEW: {(FrameType.HELLO, Kind.REQUEST): State.GREETED},
        State.GREETED: {},
        State.OPEN: dict.fromkeys(_CLIENT_OPEN, State.OPEN),
        State.CLOSING: dict.fromkeys(_CLIENT_OPEN, State.CLOSING),
        State.CLOSED: {},
    },
    _S: {
        State.NEW: _END,
        State.GREETED: {
            (FrameType.HELLO, Kind.REPLY): State.OPEN,
            (FrameType.ERROR, Kind.REPLY): State.CLOSED,
        }
        | _END,
        State.OPEN: dict.fromkeys(_SERVER_OPEN, State.OPEN) | _LEAVE | _END,
        State.CLOSING: dict.fromkeys(_SERVER_OPEN, State.CLOSING) | _LEAVE | _END,
        State.CLOSED: {},
    },
}


def kind_of(frame_type: FrameType, *, is_reply: bool, cookie: int, upload: int) -> Kind:
    """Return what a frame does, from its header."""
    if frame_type is FrameType.ERROR:
        if cookie:
            return Kind.REPLY
        return Kind.NOTICE if upload else Kind.END
    if is_reply:
        return Kind.REPLY
    return Kind.REQUEST if cookie else Kind.NOTICE


def next_state(sender: Role, state: State, frame_type: FrameType, kind: Kind) -> State | None:
    """Return the state after a frame, None if the sender may not send it in this state."""
    return TRANSITIONS[sender][state].get((frame_type, kind))


def refusal(sender: Role, state: State, frame_type: FrameType, kind: Kind) -> str:
    """Return the text for a frame that next_state has no answer for."""
    return f"a {sender.name} cannot send {frame_type.name} ({kind.name}) when {state.name}"
