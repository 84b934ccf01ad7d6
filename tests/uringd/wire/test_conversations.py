"""A client's and a server's codec joined by two pipes that deliver any pieces at any time.

What may be sent is read from the table of state.py and from the headers' rules, and filled with
messages made from the .proto file: a frame or field that the protocol gains takes part by itself.
"""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz.examples import carried, example, message_of
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    BUFFER_BYTES_MAX,
    NEED_DATA,
    OFFSET_MAX,
    REQUESTS_MAX,
    Connection,
    ConnectionClosed,
    Control,
    Data,
    Event,
    FrameType,
    LocalProtocolError,
    Role,
    State,
    crc32c,
)
from uringd.wire.header import RULES
from uringd.wire.state import TRANSITIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES_MAX = 1 << 20
PAYLOAD_BYTES_MAX = 300
"""Of a chunk here: enough for several pieces, and several chunks fit the codec's buffer."""
ROLES = st.sampled_from(Role)
# One number is drawn, not each choice: hypothesis still cuts a failure down to few steps.
RANDOMS = st.integers(0, (1 << 32) - 1).map(Random)


@dataclass(slots=True)
class End:
    """One side: its connection, what is on its way to it, and what must come out there."""

    connection: Connection
    pipe: bytearray = field(default_factory=bytearray)
    expected: deque[tuple[Event, bytes]] = field(default_factory=deque)
    payload: bytearray = field(default_factory=bytearray)
    asked: dict[int, Control] = field(default_factory=dict)  # a server's: not answered yet
    has_left: bool = False  # sends no more: its stream ended

    @property
    def is_closed(self) -> bool:
        return self.connection.state is State.CLOSED


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = {
            Role.CLIENT: End(Connection(Role.CLIENT)),
            Role.SERVER: End(Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES_MAX)),
        }
        self.cookie = 0

    @rule(role=ROLES, random=RANDOMS, upload=st.integers(1, 3))
    def a_side_sends_what_it_may(self, role: Role, random: Random, upload: int) -> None:
        moves = self.moves(role)
        if not moves:
            return
        frame_type, kind = random.choice(moves)
        if frame_type is FrameType.DATA:
            self.send_chunk(random, upload)
            return
        if RULES[frame_type].upload is False:
            upload = 0
        if kind is Kind.REQUEST:
            self.cookie += 1
            self.send(role, frame_type, random, cookie=self.cookie, upload=upload)
        elif kind is Kind.REPLY:
            request = random.choice(self.answerable(frame_type))
            self.send(role, frame_type, random, reply_to=request)
            del self.ends[role].asked[request.cookie]
        else:
            self.send(role, frame_type, random, upload=upload)

    @precondition(lambda self: not self.ends[Role.SERVER].is_closed)
    @rule(random=RANDOMS, chance=st.integers(0, 9))
    def the_server_ends_the_session(self, random: Random, chance: int) -> None:
        """Seldom: little comes after it."""
        if chance == 0 and not self.ends[Role.SERVER].has_left:
            self.send(Role.SERVER, FrameType.ERROR, random)
            assert self.ends[Role.SERVER].is_closed

    @rule(role=ROLES, chance=st.integers(0, 9))
    def a_side_leaves_between_two_frames(self, role: Role, chance: int) -> None:
        receiver = self.ends[role.peer]
        if chance or receiver.pipe or receiver.expected or receiver.is_closed:
            return
        self.ends[role].has_left = True
        receiver.connection.receive_data(b"")
        assert isinstance(receiver.connection.next_event(), ConnectionClosed)
        assert receiver.is_closed

    @rule(role=ROLES, random=RANDOMS)
    def a_side_tries_what_it_may_not(self, role: Role, random: Random) -> None:
        connection = self.ends[role].connection
        before = pickle.dumps(connection)
        with pytest.raises(LocalProtocolError):
            random.choice(self.faults(role))()
        assert pickle.dumps(connection) == before

    @rule(role=ROLES, count=st.integers(1, 3 * BUFFER_BYTES_MAX))
    def many_bytes_arrive(self, role: Role, count: int) -> None:
        self.deliver(self.ends[role], count)

    @rule(role=ROLES, count=st.integers(1, 70))
    def a_few_bytes_arrive(self, role: Role, count: int) -> None:
        self.deliver(self.ends[role], count)

    @rule(role=ROLES)
    def exactly_what_is_wanted_arrives(self, role: Role) -> None:
        end = self.ends[role]
        wanted = end.connection.bytes_wanted
        if 0 < wanted <= len(end.pipe):
            self.deliver(end, wanted)

    @rule(count=st.integers(1, PAYLOAD_BYTES_MAX))
    def a_payload_goes_past_the_codec(self, count: int) -> None:
        server = self.ends[Role.SERVER]
        count = min(server.connection.payload_remaining, len(server.pipe), count)
        server.connection.payload_received(count)
        server.payload += server.pipe[:count]
        del server.pipe[:count]
        self.take(server)

    @invariant()
    def what_arrived_leaves_both_sides_agreed(self) -> None:
        client, server = self.ends[Role.CLIENT], self.ends[Role.SERVER]
        for end in (client, server):
            assert len(end.connection._requests) <= REQUESTS_MAX
            if not end.pipe and not end.is_closed:
                assert not end.expected, "what was sent has arrived"
        if client.pipe or server.pipe or client.has_left or server.has_left:
            return
        assert client.connection.state is server.connection.state
        assert client.connection._requests._requests == server.connection._requests._requests
        if not server.is_closed:  # what ended answers nothing any more
            assert server.asked.keys() == server.connection._requests._requests.keys()

    def teardown(self) -> None:
        for end in self.ends.values():
            self.deliver(end, len(end.pipe))
        self.what_arrived_leaves_both_sides_agreed()

    def moves(self, role: Role) -> list[tuple[FrameType, Kind]]:
        """Return what a side may send now that does not end the session."""
        end = self.ends[role]
        if end.has_left:
            return []
        return [
            (frame_type, kind)
            for frame_type, kind in sorted(TRANSITIONS[role][end.connection.state])
            if kind is Kind.NOTICE
            or (kind is Kind.REQUEST and len(end.connection._requests) < REQUESTS_MAX)
            or (kind is Kind.REPLY and self.answerable(frame_type))
        ]

    def answerable(self, frame_type: FrameType) -> list[Control]:
        """Return the requests that such a frame may answer."""
        asked = self.ends[Role.SERVER].asked.values()
        return [request for request in asked if frame_type in (request.type, FrameType.ERROR)]

    def send(
        self,
        role: Role,
        frame_type: FrameType,
        random: Random,
        *,
        cookie: int = 0,
        reply_to: Control | None = None,
        upload: int = 0,
    ) -> None:
        message = message_of(random, frame_type, from_server=role is Role.SERVER)
        if isinstance(message, pb.HelloReply) and reply_to is not None:
            message.features[:] = set(message.features) & set(reply_to.message.features)
        is_reply = reply_to is not None and frame_type is not FrameType.ERROR
        if reply_to is not None:
            event = Control(frame_type, is_reply, reply_to.cookie, reply_to.upload, message)
        elif isinstance(message, pb.Put):  # its content is in the event, too
            content = message.content
            event = Control(frame_type, is_reply, cookie, upload, message, content, crc32c(content))
        else:
            event = Control(frame_type, is_reply, cookie, upload, message)
        receiver = self.ends[role.peer]
        receiver.pipe += self.ends[role].connection.send_control(
            frame_type,
            message,
            cookie=cookie,
            reply_to=reply_to.cookie if reply_to is not None else 0,
            upload=upload,
        )
        receiver.expected.append((event, b""))

    def send_chunk(self, random: Random, upload: int) -> None:
        client, server = self.ends[Role.CLIENT].connection, self.ends[Role.SERVER]
        length = random.randint(1, min(client.chunk_bytes_max, PAYLOAD_BYTES_MAX))
        payload = bytes([random.randrange(256)]) * length
        offset, more = random.getrandbits(62), bool(random.randrange(2))
        chunk = Data(upload, offset, length, crc32c(payload), more)
        header = client.send_data_header(upload, offset, length, chunk.crc32c, more=more)
        server.pipe += header + payload
        server.expected.append((chunk, payload))

    def faults(self, role: Role) -> list[Callable[[], object]]:
        """Return calls that the protocol forbids this side in its state."""
        connection = self.ends[role].connection
        allowed = TRANSITIONS[role][connection.state]
        from_server = role is Role.SERVER
        unused = {"reply_to": self.cookie + 1} if from_server else {"cookie": self.cookie + 1}
        found: list[Callable[[], object]] = [
            partial(connection.send_data_header, 1, 0, connection.chunk_bytes_max + 1, 0),
            partial(connection.send_data_header, 0, 0, 1, 0),
            partial(connection.send_data_header, 1, OFFSET_MAX, 1, 0),
            partial(connection.send_control, FrameType.DATA, pb.Ping(), upload=1),
            partial(connection.receive_data, bytes(connection.bytes_acceptable + 1)),
        ]
        if connection.state is State.CLOSED:
            found.pop()  # what arrives now is thrown away, however much it is
        for frame_type, of_server in carried():
            send = partial(connection.send_control, frame_type)
            message = example(frame_type, from_server=of_server)
            upload = 1 if RULES[frame_type].upload else 0
            if of_server is not from_server:
                found.append(partial(send, message, **unused, upload=upload))
                continue
            if (frame_type, Kind.REQUEST) not in allowed:
                found.append(partial(send, message, cookie=self.cookie + 1, upload=upload))
            found.extend(
                partial(send, message, cookie=used, upload=upload)
                for used in list(connection._requests._requests)[:1]
            )
            # No such request; and where there is one of another type, that one.
            found.append(partial(send, message, reply_to=self.cookie + 1, upload=upload))
            if from_server and frame_type is not FrameType.ERROR:
                found.extend(
                    partial(send, message, reply_to=request.cookie)
                    for request in self.ends[role].asked.values()
                    if request.type is not frame_type
                )
            if not {(frame_type, Kind.NOTICE), (frame_type, Kind.END)} & allowed.keys():
                found.append(partial(send, message, upload=upload))
        return found

    def deliver(self, end: End, count: int) -> None:
        count = min(count, len(end.pipe))
        while count > 0:
            piece = min(count, end.connection.bytes_acceptable)
            end.connection.receive_data(bytes(end.pipe[:piece]))
            del end.pipe[:piece]
            count -= piece
            self.take(end)

    def take(self, end: End) -> None:
        """Take all events and payloads; each must be the next that was sent."""
        connection, scratch = end.connection, bytearray(PAYLOAD_BYTES_MAX)
        while True:
            count = connection.read_payload_into(memoryview(scratch))
            end.payload += scratch[:count]
            if connection.payload_remaining:
                return
            if end.payload:
                assert end.payload == end.expected.popleft()[1]
                end.payload.clear()
            event = connection.next_event()
            if event is NEED_DATA or isinstance(event, ConnectionClosed):
                return
            assert event == end.expected[0][0]
            if isinstance(event, Control):
                end.expected.popleft()
                if event.cookie and connection.role is Role.SERVER:
                    end.asked[event.cookie] = event


Conversation.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestConversation = Conversation.TestCase
