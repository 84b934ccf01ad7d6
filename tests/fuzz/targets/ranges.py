"""What an upload has, beside a set of bytes. PROTOCOL.md, "Chunks".

Two bytes of settings, then an operation in each four: which one, offset, length, and what is wrong
with its checksum. The model is a set and a list, with no bisecting and no combining in it.
"""

from __future__ import annotations

from tests.fuzz.targets.target import Target
from uringd.wire import ErrorCode, LocalProtocolError, RemoteProtocolError, Verdict, crc32c
from uringd.wire.ranges import WrittenRanges

CONTENT = bytes(at * 7 % 256 ^ at >> 8 for at in range(512))
FAR = (1 << 62) + 5
"""Where an upload is when its bytes do not begin at 0: sums of this and a length fit a position."""


class Model:
    """Which bytes there are, and which chunks are remembered, in the slowest way."""

    def __init__(self, base: int, ranges_max: int, chunks_remembered: int) -> None:
        self.base = base
        self.ranges_max = ranges_max
        self.chunks_remembered = chunks_remembered
        self.present: set[int] = set()
        self.chunks: list[tuple[int, int, int]] = []

    def runs(self) -> list[tuple[int, int, int]]:
        """Return (offset, length, checksum) of what hangs together."""
        found: list[list[int]] = []
        for byte in sorted(self.present):
            if found and found[-1][1] == byte:
                found[-1][1] += 1
            else:
                found.append([byte, byte + 1])
        return [(self.base + low, high - low, crc32c(CONTENT[low:high])) for low, high in found]

    def is_full(self, offset: int, length: int) -> bool:
        """Say whether such a chunk, that is not there, would be one range too many."""
        touches = {offset - 1, offset + length} & self.present
        return not touches and len(self.runs()) >= self.ranges_max

    def verdict(self, offset: int, length: int, checksum: int) -> Verdict | None:
        """Return what a chunk is, None for one range too many."""
        wanted = set(range(offset, offset + length))
        if not wanted & self.present:
            return None if self.is_full(offset, length) else Verdict.NEW
        if not wanted <= self.present:
            return Verdict.CONFLICT
        for chunk in self.chunks:
            if chunk[0] == offset:
                return Verdict.REPEATED if chunk[1:] == (length, checksum) else Verdict.CONFLICT
        cuts = any(wanted & set(range(at, at + size)) for at, size, _ in self.chunks)
        return Verdict.CONFLICT if cuts else Verdict.FORGOTTEN

    def add(self, offset: int, length: int, checksum: int) -> None:
        self.present.update(range(offset, offset + length))
        self.chunks.append((offset, length, checksum))
        del self.chunks[: max(0, len(self.chunks) - self.chunks_remembered)]


def run(data: bytes) -> None:
    """Whatever is asked of the ranges, the model would have answered the same."""
    if len(data) < 2:
        return
    base = FAR if data[0] & 1 else 0
    model = Model(base, ranges_max=1 + (data[0] >> 1) % 8, chunks_remembered=data[1] % 8)
    ranges = WrittenRanges(ranges_max=model.ranges_max, chunks_remembered=model.chunks_remembered)
    for at in range(2, len(data) - 3, 4):
        operation, offset, length, wrong = data[at : at + 4]
        length %= 64
        checksum = crc32c(CONTENT[offset : offset + length]) ^ (wrong if operation & 1 else 0)
        match operation % 8:
            case 0 | 2 | 4:
                _add(ranges, model, offset, length, checksum)
            case 1 | 3 if length:
                _judge(ranges, model, offset, length, checksum)
            case _:
                _ask(ranges, model, offset, length)
    assert [tuple(part) for part in ranges.ranges()] == model.runs()


def _add(ranges: WrittenRanges, model: Model, offset: int, length: int, checksum: int) -> None:
    verdict = model.verdict(offset, length, checksum) if length else Verdict.CONFLICT
    before = ranges.ranges()
    try:
        ranges.add(model.base + offset, length, checksum)
    except LocalProtocolError:
        assert verdict not in (Verdict.NEW, None)
        assert ranges.ranges() == before
    except RemoteProtocolError as exc:
        assert exc.code is ErrorCode.TOO_MANY_RANGES
        assert verdict is None
        assert ranges.ranges() == before
    else:
        assert verdict is Verdict.NEW
        model.add(offset, length, checksum)


def _judge(ranges: WrittenRanges, model: Model, offset: int, length: int, checksum: int) -> None:
    wanted = model.verdict(offset, length, checksum)
    try:
        assert ranges.judge(model.base + offset, length, checksum) is wanted
    except RemoteProtocolError as exc:
        assert exc.code is ErrorCode.TOO_MANY_RANGES
        assert wanted is None


def _ask(ranges: WrittenRanges, model: Model, offset: int, length: int) -> None:
    runs, base = model.runs(), model.base
    wanted = set(range(offset, offset + length))
    assert ranges.overlaps(base + offset, length) is bool(wanted & model.present)
    assert ranges.covers(base + offset, length) is (wanted <= model.present)
    assert len(ranges) == len(runs)
    assert ranges.end == (runs[-1][0] + runs[-1][1] if runs else 0)
    assert ranges.prefix == (runs[0][1] if runs and runs[0][0] == 0 else 0)
    size = base + offset
    holes, position = [], 0
    for start, run_length, _ in [*runs, (size, 0, 0)]:
        if min(start, size) > position:
            holes.append((position, min(start, size) - position))
        position = max(position, start + run_length)
    assert ranges.missing(size) == holes
    assert ranges.missing(size, count_max=1) == holes[:1]
    try:
        checksum = ranges.crc32c(size)
    except LocalProtocolError:
        assert holes or ranges.end > size
    else:
        assert not holes
        assert ranges.end == size
        assert checksum == crc32c(CONTENT[:size])


def seeds() -> dict[str, bytes]:
    def upload(settings: bytes, *operations: tuple[int, int, int, int]) -> bytes:
        return settings + b"".join(bytes(operation) for operation in operations)

    chunks = [(0, at, 32, 0) for at in range(0, 224, 32)]
    ask = [(5, 224, 32, 0), (1, 0, 32, 0), (1, 32, 32, 9), (3, 16, 32, 0), (5, 0, 0, 0)]
    return {
        "front-to-back": upload(b"\x0e\x07", *chunks, *ask),
        "back-to-front": upload(b"\x0e\x01", *reversed(chunks), *ask),
        "with-holes": upload(b"\x04\x03", *chunks[::2], *ask, *chunks[1::2], *ask),
        "far-out": upload(b"\x0f\x00", *chunks[::3], *ask),
    }


TARGET = Target("ranges", run, seeds, bytes_max=130)
