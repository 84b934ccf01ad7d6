"""Every kept input, every seed, and what the targets would notice: without atheris."""

from __future__ import annotations

import random as random_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import keep
from tests.fuzz.examples import carried, changed, class_of, example
from tests.fuzz.frames import frame, mutate_frames, seal, split
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.receiving import Receiving, Setting, whole
from tests.fuzz.vectors import vectors
from uringd.wire import (
    HEADER_BYTES,
    BadNameError,
    ErrorCode,
    FrameType,
    Role,
    connection,
    header,
    messages,
    ranges,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES_MAX = 300
BYTES_MAX = 200 << 10
FILES = sorted(path for path in keep.CORPUS.rglob("*") if path.is_file())


def blind(data: bytes, size_max: int) -> bytes:
    """Change a byte: what a fuzzer does that knows nothing."""
    random = random_module.Random(data)
    changed = bytearray(data or b"\0")
    changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed[:size_max])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_kept_input_breaks_no_invariant(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_breaks_an_invariant(name: str) -> None:
    seeds = TARGETS[name].seeds()
    assert seeds
    for data in seeds.values():
        TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_of_a_few_breaks_an_invariant(name: str) -> None:
    target = TARGETS[name]
    for seed, data in enumerate(list(target.seeds().values())[:60]):
        mutated = target.mutate(data, target.bytes_max, seed, blind) if target.mutate else data
        assert len(mutated) <= max(target.bytes_max, len(data))
        target.run(blind(mutated, target.bytes_max))
        target.run(mutated)


def test_the_corpus_is_small_and_has_every_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert len(FILES) < FILES_MAX
    assert sum(path.stat().st_size for path in FILES) < BYTES_MAX


def test_empty_and_short_inputs_are_no_fault_of_the_codec() -> None:
    for target in TARGETS.values():
        for data in (b"", b"\0", b"\xff" * 3):
            target.check(data)


@pytest.mark.parametrize(("frame_type", "from_server"), carried())
def test_every_field_of_every_message_is_sometimes_set(
    frame_type: FrameType,
    from_server: bool,  # noqa: FBT001
) -> None:
    """A new field whose form is not guessed from its type fails here: examples.FORMS takes it."""
    random, seen = random_module.Random(1), set[str]()
    message = example(frame_type, from_server=from_server)
    for _ in range(300):
        seen |= {field.name for field, _ in message.ListFields()}
        message = changed(random, frame_type, message, from_server=from_server)
    fields = class_of(frame_type, from_server=from_server).DESCRIPTOR.fields
    assert seen == {field.name for field in fields}


def test_a_sealed_stream_gets_past_every_checksum() -> None:
    for vector in vectors():
        if len(vector.frame) < HEADER_BYTES:
            continue
        sealed = seal(split(vector.frame))
        receiving = Receiving(Role.CLIENT if vector.from_server else Role.SERVER, Setting.OPEN)
        receiving.feed(sealed, whole())
        code = receiving.failure.code if receiving.failure else None
        assert code is not ErrorCode.BAD_CHECKSUM, vector.name


def test_most_mutated_streams_say_something_new_behind_the_checksums() -> None:
    told: list[str] = []
    stream = frame(FrameType.PING, b"", cookie=9) + frame(FrameType.PING, b"", cookie=10)
    for seed in range(400):
        receiving = Receiving(Role.SERVER, Setting.OPEN)
        receiving.feed(mutate_frames(stream, 1000, seed, blind), whole())
        told.append(receiving.failure.code.name if receiving.failure else "none")
    assert told.count("BAD_CHECKSUM") < 40
    assert told.count("none") > 100
    assert len(set(told)) >= 5


def raising(error: Exception) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


CRASH = raising(IndexError("planted"))
CHUNKS = bytes([Setting.OPEN, 0]) + frame(FrameType.DATA, b"payload", flags=2, upload=1) * 2


@pytest.mark.parametrize(
    ("name", "where", "what", "planted"),
    [
        ("header", header, "_problem", CRASH),
        ("header", header, "_problem", lambda fields: None),
        ("messages", messages, "_check", CRASH),
        ("messages", messages, "_CHECKS", {"text": CRASH}),
        ("server", connection, "decode_header", CRASH),
        ("client", connection, "parse", CRASH),
        ("frames", connection, "next_state", CRASH),
        ("names", None, "check_name", lambda name: tuple(name.split("/"))),
        ("names", None, "check_name", raising(BadNameError("planted"))),
        ("ranges", ranges, "combine", lambda first, second, length: first ^ second),
        ("ranges", ranges.WrittenRanges, "_touches", lambda *_: False),
        ("ranges", ranges.WrittenRanges, "_cuts_a_chunk", lambda *_: False),
        ("urls", None, "parse_url", CRASH),
    ],
)
def test_a_target_notices_a_planted_fault(
    monkeypatch: pytest.MonkeyPatch, name: str, where: object, what: str, planted: object
) -> None:
    """Where is None, the target itself calls it."""
    run = TARGETS[name].run
    if where is None:
        monkeypatch.setitem(run.__globals__, what, planted)
    else:
        monkeypatch.setattr(where, what, planted)
    inputs = [path.read_bytes() for path in FILES if path.parent.name == name]
    with pytest.raises((AssertionError, IndexError, ValueError, KeyError)):
        for data in [*TARGETS[name].seeds().values(), *inputs]:
            TARGETS[name].check(data)


def lose_a_byte(self: connection.Connection, view: memoryview) -> int:
    """Lose the byte after every part of a payload that was buffered."""
    count = min(len(view), self.payload_remaining, len(self._buffer))
    view[:count] = self._buffer[:count]
    del self._buffer[: count + 1]
    self.payload_remaining -= count
    return count


def test_a_stream_that_depends_on_its_cut_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    TARGETS["server"].check(CHUNKS)
    monkeypatch.setattr(connection.Connection, "read_payload_into", lose_a_byte)
    with pytest.raises(AssertionError):
        TARGETS["server"].check(CHUNKS)


def test_what_cannot_be_sent_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that loses the flag MORE."""
    real = connection.Connection.send_data_header
    monkeypatch.setattr(
        connection.Connection,
        "send_data_header",
        lambda self, *fields, more: real(self, *fields, more=False),
    )
    with pytest.raises(AssertionError, match="can be sent"):
        TARGETS["server"].check(CHUNKS)
