import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import messages
from uringd.wire.codes import (
    CONTROL_BYTES_MAX,
    LIST_ENTRIES_MAX,
    RANGES_MAX,
    TEXT_BYTES_MAX,
    ErrorCode,
    FrameType,
)
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError
from uringd.wire.header import REQUEST_TYPES
from uringd.wire.messages import error_message, list_reply, parse, serialize

UPLOAD_ID = "00112233445566778899aabbccddeeff"
INSTANCE_ID = bytes(16)


def test_every_type_but_data_has_its_messages() -> None:
    notices = {FrameType.PAGES, FrameType.PLACED}
    assert set(messages.FROM_CLIENT) == REQUEST_TYPES | notices
    assert set(messages.FROM_SERVER) == set(FrameType) - {FrameType.DATA} - notices


def test_every_message_of_the_proto_file_has_its_place() -> None:
    both = [*messages.FROM_CLIENT.values(), *messages.FROM_SERVER.values()]
    carried = {message.DESCRIPTOR.name for message in both}
    parts = {"Range", "FileInfo", "UploadInfo"}
    assert carried | parts == set(pb.DESCRIPTOR.message_types_by_name)


@given(
    st.text(max_size=50), st.integers(0, 2**63 - 1), st.integers(0, 1), st.sampled_from([0, 1, 3])
)
def test_a_message_survives_the_round_trip(
    name: str, size: int, overwrite: int, durability: int
) -> None:
    create = pb.Create(name=name, size=size, overwrite=bool(overwrite), durability=durability)  # type: ignore[arg-type]
    payload = serialize(FrameType.CREATE, create, from_server=False)
    assert parse(FrameType.CREATE, payload, from_server=False) == create


@given(
    st.sampled_from(
        [(t, False) for t in messages.FROM_CLIENT] + [(t, True) for t in messages.FROM_SERVER]
    ),
    st.binary(max_size=200),
)
def test_noise_is_a_message_or_refused(frame: tuple[FrameType, bool], noise: bytes) -> None:
    frame_type, from_server = frame
    try:
        message = parse(frame_type, noise, from_server=from_server)
    except RemoteProtocolError as exc:
        assert exc.code in (ErrorCode.BAD_FRAME, ErrorCode.OUT_OF_RANGE)  # noqa: PT017 - either way
    else:
        again = serialize(frame_type, message, from_server=from_server)
        assert parse(frame_type, again, from_server=from_server) == message


@pytest.mark.parametrize(
    ("frame_type", "message"),
    [
        (FrameType.HELLO, pb.Hello(client="x" * (TEXT_BYTES_MAX + 1))),
        (FrameType.HELLO, pb.Hello(token="x" * 1025)),
        (FrameType.HELLO, pb.Hello(features=["f"] * 33)),
        (FrameType.HELLO, pb.Hello(features=["f" * 65])),
        (FrameType.CREATE, pb.Create(name="a", size=2**63)),
        (FrameType.CREATE, pb.Create(name="x" * CONTROL_BYTES_MAX)),
        (FrameType.RESUME, pb.Resume()),
        (FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID.upper())),
        (FrameType.STAT, pb.Stat()),
        (FrameType.COMMIT, pb.Commit(size=2**64 - 1)),
        (FrameType.PING, pb.Create()),
    ],
)
def test_what_a_server_would_refuse_is_not_sent(frame_type: FrameType, message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        serialize(frame_type, message, from_server=False)


@pytest.mark.parametrize(
    ("frame_type", "message"),
    [
        (FrameType.ACK, pb.Ack()),
        (FrameType.ACK, pb.Ack(instance_id=b"short")),
        (FrameType.ERROR, pb.Error()),
        (FrameType.ERROR, pb.Error(code=4711)),  # type: ignore[arg-type]
        (FrameType.ERROR, pb.Error(code=1, missing=[pb.Range(offset=1)])),  # type: ignore[arg-type]
        (FrameType.CREATE, pb.CreateReply(upload_id=UPLOAD_ID, chunk_bytes=1)),
        (
            FrameType.LIST,
            pb.ListReply(uploads=[pb.UploadInfo(upload_id="x", state=1)]),  # type: ignore[arg-type]
        ),
        (FrameType.STAT, pb.StatReply(file=pb.FileInfo(size=2**63))),
    ],
)
def test_what_a_client_would_refuse_is_not_sent(frame_type: FrameType, message: Message) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(frame_type, message.SerializeToString(), from_server=True)
    with pytest.raises(LocalProtocolError):
        serialize(frame_type, message, from_server=True)


def test_a_bad_name_is_left_to_the_session() -> None:
    assert serialize(FrameType.CREATE, pb.Create(name="../x"), from_server=False)


def test_an_error_says_itself_whether_to_retry() -> None:
    assert error_message(ErrorCode.TIMEOUT, "too slow").retryable
    assert not error_message(ErrorCode.EXISTS, "there").retryable
    assert not error_message(ErrorCode.EXISTS, "there").HasField("offset")
    assert error_message(ErrorCode.BAD_CHECKSUM, "differs", offset=0).HasField("offset")


def test_an_error_always_fits() -> None:
    missing = [(at * 2, 1) for at in range(RANGES_MAX + 1)]
    message = error_message(ErrorCode.INCOMPLETE, "\udc80" + "ü" * 4000, missing=missing)
    assert len(message.missing) == RANGES_MAX
    payload = serialize(FrameType.ERROR, message, from_server=True)
    assert parse(FrameType.ERROR, payload, from_server=True) == message


@pytest.mark.parametrize("name_bytes", [1, 40, 1024])
def test_a_list_holds_what_fits_and_says_if_there_is_more(name_bytes: int) -> None:
    files = [pb.FileInfo(name="x" * name_bytes, size=2**63 - 1)] * 3000
    reply = list_reply(files=files)
    assert reply.more and 50 < len(reply.files) <= LIST_ENTRIES_MAX
    assert serialize(FrameType.LIST, reply, from_server=True)


def test_a_list_keeps_within_the_limit_that_was_asked_for() -> None:
    uploads = [pb.UploadInfo(upload_id=UPLOAD_ID, state=1)] * 3  # type: ignore[arg-type]
    assert len(list_reply(uploads=uploads, limit=2).uploads) == 2
    assert list_reply(uploads=uploads, limit=2).more
    assert not list_reply(uploads=uploads, limit=3).more
    assert not list_reply(uploads=uploads).more
