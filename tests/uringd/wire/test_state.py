import itertools

import pytest

from uringd.wire.codes import FrameType
from uringd.wire.state import TRANSITIONS, Kind, Role, State, kind_of, next_state, refusal


def test_a_session_goes_from_hello_to_shutdown() -> None:
    state = State.NEW
    for sender, frame_type, kind, wanted in [
        (Role.CLIENT, FrameType.HELLO, Kind.REQUEST, State.GREETED),
        (Role.SERVER, FrameType.HELLO, Kind.REPLY, State.OPEN),
        (Role.CLIENT, FrameType.DATA, Kind.NOTICE, State.OPEN),
        (Role.SERVER, FrameType.SHUTDOWN, Kind.NOTICE, State.CLOSING),
        (Role.CLIENT, FrameType.DATA, Kind.NOTICE, State.CLOSING),
        (Role.SERVER, FrameType.ERROR, Kind.END, State.CLOSED),
    ]:
        after = next_state(sender, state, frame_type, kind)
        assert after is wanted
        state = after


def test_every_state_of_both_roles_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Role)
    assert all(set(states) == set(State) for states in TRANSITIONS.values())


def test_nothing_comes_after_the_end() -> None:
    for role, frame_type, kind in itertools.product(Role, FrameType, Kind):
        assert next_state(role, State.CLOSED, frame_type, kind) is None


def test_no_frame_is_both_sides_to_send() -> None:
    sends = {
        role: {move for moves in states.values() for move in moves}
        for role, states in TRANSITIONS.items()
    }
    assert not sends[Role.CLIENT] & sends[Role.SERVER]


def test_only_an_error_or_shutdown_leaves_the_open_session() -> None:
    for role in Role:
        left = {m[0] for m, after in TRANSITIONS[role][State.OPEN].items() if after != State.OPEN}
        assert left <= {FrameType.ERROR, FrameType.SHUTDOWN}


@pytest.mark.parametrize(
    ("frame_type", "is_reply", "cookie", "upload", "kind"),
    [
        (FrameType.SYNC, 0, 1, 1, Kind.REQUEST),
        (FrameType.SYNC, 1, 1, 1, Kind.REPLY),
        (FrameType.DATA, 0, 0, 1, Kind.NOTICE),
        (FrameType.ERROR, 0, 1, 1, Kind.REPLY),
        (FrameType.ERROR, 0, 0, 1, Kind.NOTICE),
        (FrameType.ERROR, 0, 0, 0, Kind.END),
    ],
)
def test_the_header_says_what_a_frame_does(
    frame_type: FrameType, is_reply: int, cookie: int, upload: int, kind: Kind
) -> None:
    assert kind_of(frame_type, is_reply=bool(is_reply), cookie=cookie, upload=upload) is kind


def test_a_refusal_names_role_frame_and_state() -> None:
    text = refusal(Role.CLIENT, State.NEW, FrameType.DATA, Kind.NOTICE)
    assert all(word in text for word in ("CLIENT", "DATA", "NEW"))


def test_each_role_has_a_peer() -> None:
    assert Role.CLIENT.peer is Role.SERVER and Role.SERVER.peer is Role.CLIENT
