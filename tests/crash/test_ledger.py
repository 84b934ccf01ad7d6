"""The crash script's judge: what it lets pass, and what it does not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.crash.ledger import BrokenPromiseError, Ledger, Spans, Watch
from uringd.v1 import uringd_pb2 as pb
from uringd.wire import Connection, ErrorCode, FrameType, Role

UPLOAD_ID = "00112233445566778899aabbccddeeff"
INSTANCE_ID = bytes(16)
CHUNK_BYTES = 4096


class Talk:
    """One connection that is read along, byte by byte: both sides keep to the protocol."""

    def __init__(self, ledger: Ledger) -> None:
        self.watch = Watch(ledger)
        self._client = Connection(Role.CLIENT)
        self._server = Connection(Role.SERVER, chunk_bytes_max=CHUNK_BYTES)
        self._cookie = 0
        hello = pb.HelloReply(
            instance_id=INSTANCE_ID,
            chunk_bytes_max=CHUNK_BYTES,
            alignment=CHUNK_BYTES,
            credit=8,
            uploads_max=1,
        )
        self.ask(FrameType.HELLO, pb.Hello(), hello)

    def ask(self, kind: FrameType, request: Any, reply: Any, upload: int = 0) -> None:
        self._cookie += 1
        sent = self._client.send_control(kind, request, cookie=self._cookie, upload=upload)
        self._pass_on(sent, self.watch.client_sent, self._server)
        answer = FrameType.ERROR if isinstance(reply, pb.Error) else kind
        back = self._server.send_control(answer, reply, reply_to=self._cookie)
        self._pass_on(back, self.watch.server_sent, self._client)

    def create(self) -> None:
        reply = pb.CreateReply(upload_id=UPLOAD_ID, upload=1, chunk_bytes=CHUNK_BYTES, epoch=1)
        self.ask(FrameType.CREATE, pb.Create(name="file", size=9), reply)

    def resume(self, *durable: tuple[int, int]) -> None:
        reply = pb.ResumeReply(
            upload=1,
            epoch=2,
            chunk_bytes=CHUNK_BYTES,
            instance_id=INSTANCE_ID,
            name="file",
            durable=[pb.Range(offset=begin, length=end - begin) for begin, end in durable],
        )
        self.ask(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID), reply)

    def data(self, begin: int, end: int) -> None:
        header = self._client.send_data_header(1, begin, end - begin, 0)
        self.watch.client_sent(header)
        for byte in bytes(end - begin):
            self.watch.client_sent(bytes([byte]))

    def ack(self, durable: int) -> None:
        ack = pb.Ack(instance_id=INSTANCE_ID, accepted=durable, written=durable, durable=durable)
        back = self._server.send_control(FrameType.ACK, ack, upload=1)
        self._pass_on(back, self.watch.server_sent, self._client)

    @staticmethod
    def _pass_on(data: bytes, watched: Any, peer: Connection) -> None:
        for at in range(len(data)):
            watched(data[at : at + 1])
        peer.receive_data(data)
        peer.next_event()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_spans_are_merged_where_they_touch() -> None:
    spans = Spans([(8, 10), (0, 2), (4, 6)])
    assert list(spans) == [(0, 2), (4, 6), (8, 10)]
    spans.add(2, 4)
    assert list(spans) == [(0, 6), (8, 10)]
    spans.add(5, 9)
    assert list(spans) == [(0, 10)]
    spans.add(3, 3)
    assert list(spans) == [(0, 10)]


@pytest.mark.parametrize(
    ("begin", "end", "overlaps"),
    [(0, 4, False), (0, 5, True), (4, 8, True), (7, 9, True), (8, 12, False), (13, 20, False)],
)
def test_spans_that_touch_do_not_overlap(begin: int, end: int, *, overlaps: bool) -> None:
    assert Spans([(4, 8), (12, 13)]).overlaps(begin, end) is overlaps


def test_spans_cover_what_lies_within_one_of_them() -> None:
    spans = Spans([(0, 4), (8, 12)])
    assert spans.covers(Spans()) and spans.covers(Spans([(1, 4), (8, 12)]))
    assert not spans.covers(Spans([(3, 9)])) and not spans.covers(Spans([(12, 13)]))


def test_a_good_resume_is_let_pass_and_bytes_are_counted(ledger: Ledger) -> None:
    first = Talk(ledger)
    first.create()
    first.data(0, 4096)
    first.data(4096, 8192)
    first.ack(4096)
    second = Talk(ledger)
    second.resume((0, 4096))
    second.data(4096, 8192)
    [known] = ledger.of_name("file")
    assert (known.upload_id, known.created, known.resumes) == (UPLOAD_ID, True, 1)
    assert known.sent_bytes == 3 * 4096


def test_a_resume_that_lost_what_an_ack_called_durable_is_told(ledger: Ledger) -> None:
    first = Talk(ledger)
    first.create()
    first.data(0, 4096)
    first.ack(4096)
    with pytest.raises(BrokenPromiseError, match=re.escape("RESUME says nothing, acknowledged")):
        Talk(ledger).resume()


def test_a_resume_that_lost_what_a_resume_had_is_told(ledger: Ledger) -> None:
    first = Talk(ledger)
    first.create()
    Talk(ledger).resume((0, 4096), (8192, 12288))
    with pytest.raises(BrokenPromiseError, match="acknowledged as durable was"):
        Talk(ledger).resume((0, 8192))


def test_what_is_acknowledged_while_a_resume_is_asked_is_not_asked_of_it(ledger: Ledger) -> None:
    """Another lane's ACK may overtake the answer: it was made before."""
    lane, other = Talk(ledger), Talk(ledger)
    lane.create()
    request = other._client.send_control(
        FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID, epoch=1, join=True), cookie=9
    )
    other._pass_on(request, other.watch.client_sent, other._server)
    lane.data(0, 4096)
    lane.ack(4096)
    reply = pb.ResumeReply(upload=7, epoch=1, chunk_bytes=1, instance_id=INSTANCE_ID)
    other.watch.server_sent(other._server.send_control(FrameType.RESUME, reply, reply_to=9))
    assert list(ledger.known(UPLOAD_ID).durable) == [(0, 4096)]


def test_durable_bytes_that_are_sent_again_are_told(ledger: Ledger) -> None:
    first = Talk(ledger)
    first.create()
    second = Talk(ledger)
    second.resume((0, 4096))
    with pytest.raises(BrokenPromiseError, match="were sent again"):
        second.data(0, 4096)


def test_a_refused_resume_is_remembered_until_it_is_answered(ledger: Ledger) -> None:
    Talk(ledger).create()
    error = pb.Error(code=pb.ErrorCode.ERROR_CODE_BUSY, retryable=True)
    Talk(ledger).ask(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID), error)
    assert ledger.known(UPLOAD_ID).refusal is ErrorCode.BUSY
    Talk(ledger).resume()
    assert ledger.known(UPLOAD_ID).refusal is None


def test_a_client_that_chose_its_id_is_known_before_the_answer(ledger: Ledger) -> None:
    talk = Talk(ledger)
    create = pb.Create(name="file", upload_id=UPLOAD_ID)
    talk.watch.client_sent(talk._client.send_control(FrameType.CREATE, create, cookie=9))
    [known] = ledger.of_name("file")
    assert (known.upload_id, known.created) == (UPLOAD_ID, False)


def test_an_upload_that_is_created_after_all_is_refused_no_more(ledger: Ledger) -> None:
    talk = Talk(ledger)
    error = pb.Error(code=pb.ErrorCode.ERROR_CODE_NOT_FOUND)
    talk.ask(FrameType.RESUME, pb.Resume(upload_id=UPLOAD_ID), error)
    assert ledger.known(UPLOAD_ID).refusal is ErrorCode.NOT_FOUND
    talk.create()
    assert ledger.known(UPLOAD_ID).refusal is None
