"""The io_uring ring itself: set-up, layout, registration, limits, and faults of the kernel."""

from __future__ import annotations

import errno
import os
import re
import select
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import STRACE
from tests.uringio.conftest import STUCK_MS
from uringio import _binding
from uringio._ring import uring as module
from uringio._ring.beside import PART
from uringio._ring.execute import BREAKS_LINKS
from uringio._ring.layout import RECORD
from uringio._ring.many import MANY_MAX, STARTED
from uringio._ring.operations import RWF_ATOMIC
from uringio.exceptions import BrokenError, UnavailableError
from uringio.lowlevel import BufferPool, Opcode, Operation, RingLike, UringRing, operations

if TYPE_CHECKING:
    from tests.conftest import RunPython
    from tests.uringio.conftest import Finish

NewRing = Callable[..., UringRing]
HEADER = Path("/usr/include/liburing/io_uring.h")

SETUP_ATTEMPTS = module.SETUP_ATTEMPTS


@pytest.fixture(autouse=True)
def needs_io_uring(uring: RingLike) -> None:
    """Skip visibly where there is no io_uring."""


def test_the_best_flags_are_taken_where_the_kernel_has_them(uring: UringRing) -> None:
    assert uring.features.backend == "io_uring"
    assert uring.features.setup_flags in SETUP_ATTEMPTS
    assert uring.features.entries == 256
    assert uring.features.completion_entries == 512


def test_flags_the_kernel_does_not_know_are_peeled_off_and_said(
    monkeypatch: pytest.MonkeyPatch, new_ring: NewRing, finish: Finish
) -> None:
    monkeypatch.setitem(module.SETUP_FLAGS, "IMPOSSIBLE", 1 << 31)
    impossible = (*SETUP_ATTEMPTS[0], "IMPOSSIBLE")
    monkeypatch.setattr(module, "SETUP_ATTEMPTS", (impossible, *SETUP_ATTEMPTS))
    ring = new_ring("io_uring")
    assert ring.features.setup_flags == SETUP_ATTEMPTS[0]
    assert any("IMPOSSIBLE" in note for note in ring.features.notes)
    token = ring.prepare(Operation(Opcode.NOP))
    assert finish(ring) == {token: 0}


def test_when_no_flags_are_taken_the_reason_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SETUP_FLAGS, "IMPOSSIBLE", 1 << 31)
    monkeypatch.setattr(module, "SETUP_ATTEMPTS", (("IMPOSSIBLE",),))
    with pytest.raises(UnavailableError, match="EINVAL"):
        UringRing()


@pytest.mark.parametrize("names", SETUP_ATTEMPTS, ids=lambda names: "+".join(names) or "none")
def test_chains_and_wake_ups_work_with_the_flags_of_every_kernel(
    monkeypatch: pytest.MonkeyPatch,
    new_ring: NewRing,
    finish: Finish,
    tmp_path: Path,
    names: tuple[str, ...],
) -> None:
    monkeypatch.setattr(module, "SETUP_ATTEMPTS", (names,))
    ring = new_ring("io_uring")
    assert ring.features.setup_flags == names
    directory = os.open(tmp_path, os.O_RDONLY)
    tokens: list[int] = []
    files = []
    for i in range(64):
        fd = os.open(tmp_path / f"{i}.part", os.O_RDWR | os.O_CREAT)
        files.append(fd)
        tokens += ring.prepare_chain(
            [
                operations.write(fd, b"x", 0, 1),
                operations.fsync(fd),
                operations.rename(directory, f"{i}.part", directory, str(i), replace=False),
            ]
        )
    results = finish(ring)
    assert [results[token] for token in tokens] == [1, 0, 0] * 64
    for fd in (*files, directory):
        os.close(fd)


@pytest.mark.parametrize("entries", [0, 7, 4097, -1])
def test_a_queue_depth_out_of_bounds_is_refused(entries: int) -> None:
    with pytest.raises(ValueError, match="entries must be 8 to 4096"):
        UringRing(entries)


def test_the_queue_depth_is_rounded_up_to_a_power_of_two(new_ring: NewRing) -> None:
    assert new_ring("io_uring", 9).features.entries == 16


def test_records_are_laid_out_as_the_c_structs() -> None:
    source = Path(module.__file__).parents[1] / "_binding" / "liburing.csrc.c"
    text = source.read_text()
    formats = {"uint8_t": "B", "int16_t": "h", "int32_t": "i", "uint32_t": "I", "uint64_t": "Q"}
    for name, layout in (("record", RECORD), ("completion", module.COMPLETION)):
        found = re.search(rf"struct uringio_{name} \{{\n(.*?)\}};", text, re.DOTALL)
        assert found is not None
        fields = re.findall(r"(\w+) \w+;", found[1])
        native = struct.Struct("@" + "".join(formats[field] for field in fields))
        assert native.size == layout.size, "C adds no padding that the packed layout lacks"
        read = layout.format.replace("4x", "I")  # skipped, for nobody needs it
        assert read == "=" + native.format[1:]
        assert f"sizeof(struct uringio_{name}) == {layout.size}" in text


def test_numbers_of_many_writes_are_those_of_the_c_side() -> None:
    text = (Path(module.__file__).parents[1] / "_binding" / "liburing.csrc.c").read_text()
    assert f"#define URINGIO_MANY_MAX {MANY_MAX}\n" in text
    assert "#define URINGIO_STARTED INT32_MIN\n" in text
    assert STARTED == -(2**31)
    assert "#define URINGIO_PART (UINT64_C(1) << 63)\n" in text
    assert PART == 1 << 63
    assert f"#define URINGIO_RWF_ATOMIC {RWF_ATOMIC:#x}\n" in text


def test_every_field_of_a_record_reaches_the_kernel(
    uring: UringRing, finish: Finish, descriptor: int
) -> None:
    """Values that would show up swapped: offset, length, address, flags, token."""
    rwf_append = 0x10
    os.pwrite(descriptor, b"12345", 0)
    first = uring.prepare(operations.write(descriptor, b"ab", 1, 2))
    second = uring.prepare(operations.write(descriptor, b"xyz", 0, 3, flags=rwf_append))
    assert (first, second) == (1, 2)
    results = finish(uring)
    assert results == {first: 2, second: 3}
    assert os.pread(descriptor, 100, 0) == b"1ab45xyz"


def test_a_token_wider_than_32_bits_comes_back_whole(uring: UringRing, finish: Finish) -> None:
    uring._next_token = 0x1234_5678_9ABC_DEF0
    token = uring.prepare(Operation(Opcode.NOP))
    assert finish(uring) == {token: 0}
    assert token == 0x1234_5678_9ABC_DEF0


def test_an_offset_beyond_4_gib_arrives(uring: UringRing, finish: Finish, descriptor: int) -> None:
    offset = (5 << 30) + 7
    uring.prepare(operations.write(descriptor, b"far", offset, 3))
    finish(uring)
    assert os.pread(descriptor, 3, offset) == b"far"
    assert os.fstat(descriptor).st_size == offset + 3


def test_opcode_numbers_are_those_of_the_installed_header() -> None:
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not installed")
    listed = re.search(r"enum io_uring_op \{(.*?)\};", HEADER.read_text(), re.DOTALL)
    assert listed is not None
    names = re.findall(r"IORING_OP_(\w+)", listed[1])
    checked = 0
    for opcode in Opcode:
        if opcode < names.index("LAST"):
            assert names[opcode] == opcode.name
            checked += 1
        else:
            assert opcode is Opcode.FTRUNCATE, "newer than the header of liburing 2.3"
    assert checked >= 15


def test_missing_opcodes_are_what_the_kernel_s_probe_lacks(
    uring: UringRing, finish: Finish, descriptor: int
) -> None:
    for opcode in Opcode:
        assert uring.supports(opcode) == (opcode not in uring.features.missing_opcodes)
    token = uring.prepare(operations.ftruncate(descriptor, 3))
    assert (finish(uring)[token] == 0) == uring.supports(Opcode.FTRUNCATE)


def test_a_bad_member_in_mid_chain_cancels_the_whole_chain(
    uring: UringRing, finish: Finish, descriptor: int
) -> None:
    """The kernel looks at a chain before it starts: even what stands before it does not run."""
    tokens = uring.prepare_chain(
        [
            operations.write(descriptor, b"x", 0, 1),
            Operation(254, descriptor),  # type: ignore[arg-type]
            operations.fsync(descriptor),
        ]
    )
    assert finish(uring) == {
        tokens[0]: -errno.ECANCELED,
        tokens[1]: -errno.EINVAL,
        tokens[2]: -errno.ECANCELED,
    }
    assert os.fstat(descriptor).st_size == 0


@pytest.mark.parametrize(
    "bad",
    [
        Operation(Opcode.WRITE, 0, offset=1 << 64, length=1, data=b"x"),
        Operation(Opcode.WRITE, 0, length=1, data="no buffer"),  # type: ignore[arg-type]
    ],
    ids=["offset", "data"],
)
def test_a_chain_with_a_member_that_is_nonsense_leaves_no_head_behind(
    uring: UringRing, finish: Finish, descriptor: int, bad: Operation
) -> None:
    with pytest.raises((struct.error, TypeError)):
        uring.prepare_chain([operations.fsync(999_999), bad])
    assert (uring.in_flight, uring.prepared) == (0, 0)
    token = uring.prepare(operations.write(descriptor, b"x", 0, 1))
    assert finish(uring) == {token: 1}


def test_slots_are_registered_in_order(uring: UringRing) -> None:
    pool = BufferPool(4, 8192)
    uring.register(pool)
    assert [slot.buffer_index for slot in pool.slots] == [0, 1, 2, 3]
    assert uring.features.registered_slots == 4
    assert uring.features.notes == []
    uring.close()
    pool.close()


def test_a_fixed_write_outside_of_its_slot_is_refused(
    uring: UringRing, finish: Finish, descriptor: int
) -> None:
    """Proof that the index is used: the memory of another slot is no part of this buffer."""
    pool = BufferPool(2, 4096)
    uring.register(pool)
    other = pool.slots[1].memory
    token = uring.prepare(operations.write(descriptor, other, 0, 4096, buffer_index=0))
    assert finish(uring) == {token: -errno.EFAULT}
    del other
    uring.close()
    pool.close()


@pytest.mark.parametrize("opcode", sorted(BREAKS_LINKS))
def test_what_is_said_to_break_a_link_does(
    uring: UringRing, finish: Finish, tmp_path: Path, opcode: Opcode
) -> None:
    """Of others no more is relied upon than that they are done in order."""
    memory = bytearray(8)
    directory = os.open(tmp_path, os.O_RDONLY)
    read_only, write_only = (tmp_path / "read-only", tmp_path / "write-only")
    for path in (read_only, write_only):
        path.write_bytes(b"12345678")
    for_reading, for_writing = os.open(read_only, os.O_RDONLY), os.open(write_only, os.O_WRONLY)
    pool = BufferPool(2, 4096)
    uring.register(pool)
    slot = pool.slots[0].memory
    failing = {
        Opcode.READ: operations.read(for_writing, memory, 0, 8),
        Opcode.READ_FIXED: operations.read(for_writing, slot, 0, 8, buffer_index=0),
        Opcode.WRITE: operations.write(for_reading, memory, 0, 8),
        Opcode.WRITE_FIXED: operations.write(for_reading, slot, 0, 8, buffer_index=0),
        Opcode.OPENAT: operations.open_at(directory, "none", os.O_RDONLY, 0),
        Opcode.OPENAT2: operations.open_beneath(directory, "none", os.O_RDONLY),
        Opcode.CLOSE: operations.close(999_999),
    }[opcode]
    assert failing.opcode is opcode
    chain = [failing, operations.make_directory(directory, "behind", 0o700)]
    first, second = uring.prepare_chain(chain)
    results = finish(uring)
    assert results[first] < 0
    assert results[second] == -errno.ECANCELED
    assert not (tmp_path / "behind").exists()
    for fd in (directory, for_reading, for_writing):
        os.close(fd)
    uring.close()
    pool.close()


MEMLOCK = """
import os, resource, select, sys
from uringio.lowlevel import BufferPool, UringRing, operations
from uringio._ring.pool import default_slots, memlock_limit
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
assert memlock_limit() == limit
ring, pool = UringRing(8), BufferPool(8, 256 << 10)
ring.register(pool)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for slot in pool.slots:
    slot.memory[:] = bytes([slot.index + 1]) * pool.slot_bytes
    ring.prepare(operations.write(fd, slot.memory, slot.index * pool.slot_bytes, pool.slot_bytes,
                                  buffer_index=slot.buffer_index))
while ring.in_flight:
    ring.submit()
    select.select([ring.wakeup_fd], [], [])
    assert all(result == pool.slot_bytes for _, result in ring.reap())
for index in range(8):
    data = os.pread(fd, pool.slot_bytes, index * pool.slot_bytes)
    assert data == bytes([index + 1]) * (256 << 10)
print(ring.features.registered_slots, default_slots(256 << 10), *ring.features.notes)
"""


def somebody_else(capability: str) -> tuple[str, ...]:
    """Run as a user who has locked nothing yet: the kernel counts locked memory by user."""
    user = f"--reuid={61_000 + os.getpid() % 4000}"
    kept = f"caps=-all,+{capability}"
    bounds = ("--bounding-set=-ipc_lock", f"--inh-{kept}", f"--ambient-{kept}")
    return ("setpriv", user, "--clear-groups", *bounds)


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping a capability for a child needs root")
@pytest.mark.parametrize(
    ("limit", "registered", "default"), [(64 << 10, {0}, 2), (1 << 20, {1, 2, 3, 4}, 2)]
)
def test_what_rlimit_memlock_refuses_is_written_unregistered_and_said(
    run_python: RunPython, tmp_path: Path, limit: int, registered: set[int], default: int
) -> None:
    """The kernel counts a huge page whole, so how many of the slots fit is its own affair."""
    done = run_python(MEMLOCK, tmp_path / "file", limit, prefix=somebody_else("dac_override"))
    count, by_default, note = done.stdout.split(" ", 2)
    assert int(count) in registered | {0}
    assert int(by_default) == default
    assert f"{8 - int(count)} of 8 slots are not registered" in note
    assert "RLIMIT_MEMLOCK" in note


ONE_RING_AFTER_ANOTHER = """
import resource, trio, uringio
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))

async def main():
    for _ in range(4):
        async with uringio.open_ring() as ring:
            features = ring.features
            print(features.registered_slots, features.slots, features.notes)
            assert features.registered_slots == features.slots, features.notes

trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="dropping a capability for a child needs root")
def test_each_ring_gets_its_pool_registered_when_the_one_before_is_closed(
    run_python: RunPython,
) -> None:
    """With the limit most systems have, and as a user who has locked nothing else."""
    run_python(ONE_RING_AFTER_ANOTHER, prefix=somebody_else("dac_read_search"))


REFUSED_ENTERS = """
import os, select, sys
from uringio.lowlevel import UringRing, operations
ring = UringRing(8)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
expected, results, refused = {}, {}, 0
for i in range(24):
    tokens = ring.prepare_chain([operations.write(fd, bytes([i + 1]), i, 1), operations.fsync(fd)])
    expected.update(zip(tokens, (1, 0)))
    if i % 2:
        refused += ring.submit() > 0
while ring.in_flight:
    left = ring.submit()
    refused += left > 0
    if not left:
        select.select([ring.wakeup_fd], [], [])
    results.update(ring.reap())
assert results == expected, results
assert os.pread(fd, 100, 0) == bytes(range(1, 25))
print(refused)
"""


@pytest.mark.parametrize("error", ["EAGAIN", "EBUSY", "EINTR"])
def test_a_kernel_that_refuses_for_a_while_loses_nothing(
    run_python: RunPython, tmp_path: Path, error: str
) -> None:
    trace = (*STRACE, "-o", str(tmp_path / "trace"))
    inject = ("-e", f"inject=io_uring_enter:error={error}:when=3..5")
    done = run_python(REFUSED_ENTERS, tmp_path / "file", prefix=(*trace, *inject))
    assert "INJECTED" in (tmp_path / "trace").read_text()
    assert (int(done.stdout) > 0) == (error != "EINTR"), "an interrupted submit is repeated at once"


COUNTED_ENTERS = """
import os, select, sys
from array import array
from uringio.lowlevel import Many, UringRing, operations
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
ring = UringRing(64)
views = [memoryview(bytes(100))] * 300
from uringio._ring.many import addresses_of
lengths, offsets = array("i", [100] * 300), array("q", range(0, 30_000, 100))
ring.prepare_many(Many(fd, 0, views, addresses_of(views), lengths, offsets))
for _ in range(10):
    for offset in range(30):
        ring.prepare(operations.write(fd, b"x", offset, 1))
    ring.prepare_chain([operations.fsync(fd), operations.write(fd, b"y", 0, 1)])
    while ring.in_flight:
        if not ring.submit():  # else nothing may be on its way that could wake anybody
            select.select([ring.wakeup_fd], [], [])
        ring.reap()
print(*ring.counts)
"""


def test_every_enter_is_counted_and_every_refused_one(
    run_python: RunPython, tmp_path: Path
) -> None:
    trace = (*STRACE, "-o", str(tmp_path / "trace"))
    inject = ("-e", "inject=io_uring_enter:error=EAGAIN:when=3..50+7")
    done = run_python(COUNTED_ENTERS, tmp_path / "file", prefix=(*trace, *inject))
    lines = (tmp_path / "trace").read_text().splitlines()
    calls = [line for line in lines if "io_uring_enter(" in line]
    refused = sum("EAGAIN" in call for call in calls)
    assert refused > 0
    assert [int(number) for number in done.stdout.split()] == [len(calls), refused]


FULL_BATCH = """
import select
from uringio.lowlevel import Opcode, Operation, UringRing
ring = UringRing(8)
tokens = [ring.prepare(Operation(Opcode.NOP)) for _ in range(4)]
assert ring.submit() == 4
tokens += [ring.prepare(Operation(Opcode.NOP)) for _ in range(17)]
results = {}
while ring.in_flight:
    ring.submit()
    select.select([ring.wakeup_fd], [], [])
    results.update(ring.reap())
assert results == dict.fromkeys(tokens, 0), results
"""


def test_a_full_batch_behind_a_refused_one_is_taken_when_the_kernel_takes_again(
    run_python: RunPython,
) -> None:
    """Refused SQEs stay queued, so the next full batch does not fit beside them at first."""
    inject = ("-e", "inject=io_uring_enter:error=EAGAIN:when=1")
    run_python(FULL_BATCH, prefix=(*STRACE, "-o", "/dev/null", *inject))


def test_a_kernel_that_refuses_for_good_breaks_the_ring(
    monkeypatch: pytest.MonkeyPatch, new_ring: NewRing, finish: Finish
) -> None:
    ring = new_ring("io_uring", 8)
    with monkeypatch.context() as patch:
        refuse(patch, errno.EBADFD, times=1_000_000)
        token = ring.prepare(Operation(Opcode.NOP))
        with pytest.raises(BrokenError, match="bad state"):
            ring.submit()
    assert finish(ring) == {token: 0}


def test_refusals_without_end_break_the_ring(
    monkeypatch: pytest.MonkeyPatch, new_ring: NewRing, finish: Finish
) -> None:
    ring = new_ring("io_uring", 8)
    with monkeypatch.context() as patch:
        patch.setattr(module, "BROKEN_AFTER_REFUSALS", 5)
        refuse(patch, errno.EBUSY, times=1_000_000)
        token = ring.prepare(Operation(Opcode.NOP))
        for _ in range(4):
            assert ring.submit() == 1
        with pytest.raises(BrokenError):
            ring.submit()
    assert finish(ring) == {token: 0}


def refuse(patch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """Let the next submits fail: what they would hand over stays prepared."""
    real = _binding.lib
    left = times

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def uringio_submit(self, *args: Any) -> int:
            nonlocal left
            if left == 0:
                return int(real.uringio_submit(*args))
            left -= 1
            args[-1][0] = 0
            return -number

    patch.setattr(module, "lib", Refusing())


def test_nobody_waits_for_a_wake_up_that_does_not_come(uring: UringRing, descriptor: int) -> None:
    """One wake-up may stand for many completions, and none comes for what one reap left."""
    count = 512
    for i in range(count // 4):
        uring.prepare_chain([operations.write(descriptor, b"x", i, 1)] * 3)
        uring.prepare(operations.fsync(descriptor))
    poll = select.poll()
    poll.register(uring.wakeup_fd, select.POLLIN)
    seen = 0
    while seen < count:
        uring.submit()
        assert poll.poll(30_000)
        seen += len(uring.reap())
    assert uring.in_flight == 0


def test_a_reap_leaves_nobody_awake_for_nothing(uring: UringRing, descriptor: int) -> None:
    """What the reap itself completes fires the eventfd once more, and that is cleared behind it."""
    for _ in range(50):
        uring.prepare_chain(
            [operations.write(descriptor, b"x", 0, 1), operations.fsync(descriptor)]
        )
        uring.submit()
        while uring.in_flight:
            assert select.select([uring.wakeup_fd], [], [], STUCK_MS / 1000)[0]
            uring.reap()
        assert not select.select([uring.wakeup_fd], [], [], 0)[0]
