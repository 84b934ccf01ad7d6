"""protos/PROTOCOL.md against the code: the text is normative, so its tables are checked."""

import re
from pathlib import Path

import pytest

from uringd.v1 import uringd_pb2 as pb
from uringd.wire import (
    ADVICE,
    HEADER_BYTES,
    NEED_DATA,
    Connection,
    Control,
    Data,
    Durability,
    ErrorCode,
    Event,
    Flag,
    FrameType,
    Role,
    UploadState,
    codes,
    crc32c,
)
from uringd.wire.header import RULES
from uringd.wire.messages import FROM_CLIENT, FROM_SERVER, NEEDED
from uringd.wire.state import TRANSITIONS, Kind, State

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "protos" / "PROTOCOL.md").read_text()
WIRE = ROOT / "service" / "uringd" / "wire"
HEADINGS = {line.lstrip("# ") for line in TEXT.splitlines() if line.startswith("#")}


def section(heading: str) -> str:
    """Return what stands between a heading and the next one, of any level."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def table(heading: str, first: str) -> list[list[str]]:
    """Return the rows of the table below a heading whose first column is called first."""
    lines = section(heading).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_error_table_is_the_codes() -> None:
    rows = table("Errors", "code")
    assert [(int(row[0]), row[1]) for row in rows] == [(c.value, c.name) for c in ErrorCode]
    for _, name, retryable, meaning, next_step in rows:
        advice = ADVICE[ErrorCode[name]]
        assert (retryable == "yes", next_step) == advice
        assert meaning


def test_every_error_code_is_explained_where_it_arises() -> None:
    body = TEXT.split("## Errors")[0]
    assert {code.name for code in ErrorCode if f"`{code.name}`" not in body} == set()


def test_the_frame_table_is_the_types_and_their_messages() -> None:
    rows = table("Frames", "type")
    assert [(int(row[0]), row[1]) for row in rows] == [(t.value, t.name) for t in FrameType]
    for _, name, client, server, payload in rows:
        frame_type = FrameType[name]
        assert (client != "-") == (frame_type in FROM_CLIENT or frame_type is FrameType.DATA)
        assert (server != "-") == (frame_type in FROM_SERVER)
        both = (FROM_CLIENT, FROM_SERVER)
        carried = [d[frame_type].DESCRIPTOR.name for d in both if frame_type in d]
        assert payload == (", ".join(carried) or "raw bytes")


def test_the_flag_table_is_the_flags() -> None:
    rows = table("Header", "bit")
    assert {row[1]: 1 << int(row[0]) for row in rows} == {f.name: f.value for f in Flag if f}


def test_what_a_header_may_carry_is_what_the_code_checks() -> None:
    wanted = {True: "set", False: "0", None: "any"}
    seen = []
    for names, flags, cookie, upload in table("Header", "type"):
        for name in names.split(", "):
            rule = RULES[FrameType[name]]
            assert flags == (Flag(rule.flags).name if rule.flags else "none")
            assert (cookie, upload) == (wanted[rule.cookie], wanted[rule.upload])
            seen.append(name)
    assert sorted(seen) == sorted(frame_type.name for frame_type in RULES)


def test_the_header_fields_fill_its_bytes() -> None:
    bits = [int(width) for width in re.findall(r"^C, S: (\d+) bits", TEXT, re.MULTILINE)]
    assert sum(bits) == HEADER_BYTES * 8


def test_the_limits_are_the_constants() -> None:
    rows = table("Limits", "limit")
    assert {row[0]: int(row[1].replace(",", "")) for row in rows} == {
        name: value
        for name, value in vars(codes).items()
        if name.endswith(("_MAX", "_BYTES", "_CHARS")) and isinstance(value, int)
    }


def test_the_levels_are_the_enum() -> None:
    rows = table("Ordering and durability", "value")[1:]
    assert {row[1]: int(row[0]) for row in rows} == {d.name: d.value for d in Durability if d}


def test_the_needed_fields_are_those_the_code_asks_for() -> None:
    needed = {
        name: [field.strip("` ") for field in fields.split(",")]
        for names, fields in table("Messages", "message")
        for name in names.split(", ")
    }
    assert needed == {message.DESCRIPTOR.name: list(fields) for message, fields in NEEDED.items()}


def test_the_upload_states_are_the_enum() -> None:
    rows = table("STAT", "value")
    assert {row[1]: int(row[0]) for row in rows} == {s.name: s.value for s in UploadState if s}


def test_the_phases_are_the_states() -> None:
    rows = table("Phases", "state")
    assert [row[0] for row in rows] == [state.name for state in State]
    for row, state in zip(rows, State, strict=True):
        for cell, role in ((row[2], Role.CLIENT), (row[3], Role.SERVER)):
            assert (cell == "nothing") == (not TRANSITIONS[role][state])
    assert (FrameType.SHUTDOWN, Kind.NOTICE) in TRANSITIONS[Role.SERVER][State.OPEN]


def test_every_field_that_the_text_names_is_in_the_proto_file() -> None:
    known = {
        name
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for name in message.fields_by_name
    }
    lines = re.findall(r"^[CS]: [A-Z]\w+: (.*?)  $", TEXT, re.MULTILINE | re.DOTALL)
    assert len(lines) > 10
    for line in lines:
        named = set(re.findall(r"`(\w+)`", line))
        assert named and named <= known


@pytest.mark.parametrize("name", sorted(p.name for p in WIRE.glob("*.py")))
def test_the_code_names_sections_that_exist(name: str) -> None:
    names = re.findall(r'PROTOCOL\.md, "([^"]+)"', (WIRE / name).read_text())
    assert set(names) <= HEADINGS


def test_references_in_the_text_lead_somewhere() -> None:
    named = set(re.findall(r'\("([A-Z][A-Za-z ]+)"\)', TEXT))
    assert len(named) > 5
    assert named <= HEADINGS


def blocks() -> list[tuple[str, bytes, list[tuple[str, bytes]]]]:
    """Return sender, frame and fields of each block of the worked example."""
    found = []
    pattern = r"^([CS]): [^\n]*\n\n```hex\n(.*?)```"
    for side, body in re.findall(pattern, section("Worked example"), re.MULTILINE | re.DOTALL):
        fields = []
        for line in body.splitlines():
            data, _, what = line.partition("|")
            fields.append((what.strip(), bytes.fromhex(data)))
        found.append((side, b"".join(data for _, data in fields), fields))
    return found


def test_the_worked_example_is_a_session() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER, chunk_bytes_max=1 << 20)
    events: list[Event] = []
    for side, frame, _ in blocks():
        sender, receiver = (client, server) if side == "C" else (server, client)
        receiver.receive_data(frame)
        event = receiver.next_event()
        assert event is not NEED_DATA
        events.append(event)
        if isinstance(event, Data):
            payload = bytearray(event.length)
            assert receiver.read_payload_into(memoryview(payload)) == event.length
            assert crc32c(payload) == event.crc32c
            sender.send_data_header(event.upload, event.offset, event.length, event.crc32c)
            continue
        assert isinstance(event, Control)
        again = sender.send_control(
            event.type,
            event.message,
            cookie=event.cookie if side == "C" else 0,
            reply_to=event.cookie if side == "S" else 0,
            upload=event.upload,
        )
        assert again == frame
        assert receiver.next_event() is NEED_DATA
    receipt = events[-1]
    assert isinstance(receipt, Control) and isinstance(receipt.message, pb.Receipt)
    assert receipt.message.size == 5
    assert receipt.message.crc32c == crc32c(b"hello")
    server.receive_data(b"")


def test_the_worked_example_says_what_its_bytes_are() -> None:
    names = ["magic", "version", "type", "flags", "cookie", "upload", "offset"]
    names += ["payload_length", "payload_crc32c", "reserved", "header_crc32c"]
    for _, frame, fields in blocks():
        assert [what for what, _ in fields[: len(names)]] == names
        assert len(b"".join(data for _, data in fields[: len(names)])) == HEADER_BYTES
        assert len(frame) > HEADER_BYTES
        for what, data in fields[len(names) :]:
            quoted = re.search(r'"(.*)"', what)
            assert quoted is None or quoted[1].encode() in data
