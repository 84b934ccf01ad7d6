"""What workers say to each other comes out as it went in, and what is no message is refused."""

from __future__ import annotations

import pytest

from uringd.workers.messages import (
    DESCRIBED_MAX,
    PACKET_BYTES_MAX,
    Abort,
    Answer,
    Describe,
    Find,
    LetGo,
    MessageError,
    Move,
    Question,
    decode,
    encode,
)

MESSAGES = [
    Find("00" * 16),
    LetGo("00" * 16, 3),
    Abort("00" * 16, "asked for by 127.0.0.1:1"),
    Describe(["00" * 16, "11" * 16]),
    Move("tcp", "127.0.0.1:1", ["lanes", "resume"], 8, 1 << 20, "00" * 16, 1, 2, "AAAA"),
    Answer(True, 4, 16, "another holder", [["00" * 16, 1, 3, 2, 1, -1]]),
    Answer(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Question | Answer) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'["Nothing", {}]',
        b'["Find", {}]',
        b'["Find", {"upload_id": 1}]',
        b'["Find", {"upload_id": "x", "more": 1}]',
        b'["LetGo", {"upload_id": "x", "epoch": true}]',
        b'["Describe", {"upload_ids": "x"}]',
        b'["Describe", {"upload_ids": [1]}]',
        b'["Answer", {"described": [["x", 1]]}]',
        b'["Answer", {"described": [["x", 1, 2, 3, 4, "5"]]}]',
    ],
)
def test_what_is_no_message_is_refused(packet: bytes) -> None:
    with pytest.raises(MessageError):
        decode(packet)


def test_the_longest_list_of_uploads_fits_a_packet_both_ways() -> None:
    largest = (1 << 63) - 1
    ids = [f"{number:032x}" for number in range(DESCRIBED_MAX)]
    assert len(encode(Describe(ids))) <= PACKET_BYTES_MAX
    rows = [[upload_id, 5, largest, largest, largest, largest] for upload_id in ids]
    assert decode(encode(Answer(described=rows))).described == rows
    with pytest.raises(MessageError):
        encode(Answer(text="x" * PACKET_BYTES_MAX))
