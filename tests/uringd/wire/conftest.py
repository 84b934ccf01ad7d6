from collections.abc import Callable

import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Connection, Control, FrameType, Role

INSTANCE_ID = bytes(range(16))
CHUNK_BYTES_MAX = 1 << 20

Pair = tuple[Connection, Connection]


@pytest.fixture
def new_pair() -> Pair:
    """A client and a server before HELLO."""
    return Connection(Role.CLIENT), Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES_MAX)


@pytest.fixture
def hello_reply() -> pb.HelloReply:
    return pb.HelloReply(
        instance_id=INSTANCE_ID,
        chunk_bytes_max=CHUNK_BYTES_MAX,
        alignment=4096,
        credit=4,
        uploads_max=2,
    )


@pytest.fixture
def open_pair(new_pair: Pair, hello_reply: pb.HelloReply) -> Pair:
    """A client and a server after HELLO and its reply."""
    client, server = new_pair
    server.receive_data(client.send_control(FrameType.HELLO, pb.Hello(client="test"), cookie=1))
    asked = server.next_event()
    assert isinstance(asked, Control)
    client.receive_data(
        server.send_control(FrameType.HELLO, hello_reply, reply_to=asked.cookie),
    )
    assert isinstance(client.next_event(), Control)
    return client, server


@pytest.fixture(params=["whole", "byte by byte"])
def deliver(request: pytest.FixtureRequest) -> Callable[[Connection, bytes], None]:
    """Hand bytes to a connection in one piece, or in the smallest."""
    piece = 1 if request.param == "byte by byte" else 1 << 20

    def feed(connection: Connection, data: bytes) -> None:
        for at in range(0, len(data), piece):
            connection.receive_data(data[at : at + piece])

    return feed
