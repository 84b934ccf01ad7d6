"""The simulated ring: reproducible, bounded, and faulty as planned."""
# A test may block on a small file; an `async with` that raises is more than one statement.

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import uringio
from uringio.exceptions import OperationError
from uringio.lowlevel import BufferPool, Completion, Opcode, Operation, operations, run_ring
from uringio.testing import Fault, SimulatedRing, simulated

if TYPE_CHECKING:
    from pathlib import Path

    from tests.uringio.conftest import Finish


def run(seed: int, descriptor: int) -> list[list[Completion]]:
    """A fixed sequence of calls; its completions, reap by reap."""
    faults = [Fault(Opcode.WRITE, short=2, probability=0.3)]
    ring = SimulatedRing(seed, faults=faults)
    for i in range(10):
        ring.prepare_chain([operations.write(descriptor, b"1234", i, 4), Operation(Opcode.NOP)])
        ring.prepare(Operation(Opcode.NOP))
    ring.cancel(4)
    reaped = []
    while ring.in_flight:
        ring.submit()
        reaped.append(ring.reap())
    ring.close()
    return reaped


def test_the_same_seed_gives_the_same_completions(descriptor: int) -> None:
    assert run(5, descriptor) == run(5, descriptor)
    assert len({str(run(seed, descriptor)) for seed in range(10)}) == 10


def test_completions_come_in_any_order_but_soon(descriptor: int) -> None:
    orders = set()
    for seed in range(20):
        reaped = run(seed, descriptor)
        assert len(reaped) <= 3 + 2 * (simulated.REAPS_MAX + 1), "bounded"
        orders.add(tuple(token for completions in reaped for token, _ in completions))
    assert len(orders) == 20


def test_the_nth_operation_gets_the_planned_result(finish: Finish, descriptor: int) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.WRITE, 3, result=-errno.EIO)])
    tokens = ring.prepare_chain([operations.write(descriptor, b"x", i, 1) for i in range(5)])
    assert list(finish(ring).items()) == [
        *((token, 1) for token in tokens[:2]),
        (tokens[2], -errno.EIO),
        *((token, -errno.ECANCELED) for token in tokens[3:]),
    ]
    assert os.fstat(descriptor).st_size == 2, "what fails is not done"
    ring.close()


def test_every_goes_on_from_the_nth(finish: Finish) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.NOP, 3, result=-errno.EINTR, every=True)])
    for _ in range(5):
        ring.prepare(Operation(Opcode.NOP))
        finish(ring)
    assert [result for _, result in ring.history] == [0, 0, *[-errno.EINTR] * 3]
    ring.close()


def test_a_probability_hits_some_and_not_all(finish: Finish) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.NOP, result=-errno.EIO, probability=0.5)])
    for _ in range(200):
        ring.prepare(Operation(Opcode.NOP))
    hit = list(finish(ring).values()).count(-errno.EIO)
    assert 50 < hit < 150
    ring.close()


def test_a_short_write_really_writes_that_part(finish: Finish, descriptor: int) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.WRITE, short=3)])
    token = ring.prepare(operations.write(descriptor, b"12345", 0, 5))
    assert finish(ring) == {token: 3}
    assert os.pread(descriptor, 10, 0) == b"123"
    ring.close()


def test_a_fault_of_writes_hits_fixed_ones_too(finish: Finish, descriptor: int) -> None:
    for opcode in (Opcode.WRITE, Opcode.WRITE_FIXED):
        ring = SimulatedRing(faults=[Fault(opcode, result=-errno.EIO, every=True)])
        ring.register(BufferPool(2, 4096))
        ring.prepare(operations.write(descriptor, b"x", 0, 1))
        ring.prepare(operations.write(descriptor, b"x", 0, 1, buffer_index=0))
        assert set(finish(ring).values()) == {-errno.EIO}
        ring.close()


def test_a_fixed_operation_whose_slot_is_not_registered_is_refused(
    finish: Finish, descriptor: int
) -> None:
    ring, pool = SimulatedRing(), BufferPool(2, 4096)
    write = operations.write(descriptor, pool.slots[1].memory, 0, 4096, buffer_index=1)
    ring.prepare(write)
    assert set(finish(ring).values()) == {-errno.EFAULT}
    ring.register(pool)
    ring.prepare(write)
    assert set(finish(ring).values()) == {4096}
    ring.unregister_increment(pool.increments[0])
    ring.prepare(write)
    assert set(finish(ring).values()) == {-errno.EFAULT}
    assert ring.features.registered_slots == 0
    ring.close()


def test_an_fsync_after_a_failed_one_lies_until_the_descriptor_is_closed(
    finish: Finish, tmp_path: Path
) -> None:
    performed: list[Opcode] = []

    def perform(operation: Operation) -> int:
        performed.append(operation.opcode)
        return 0

    ring = SimulatedRing(faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)], perform=perform)
    for operation in (*[operations.fsync(7)] * 3, operations.close(7), operations.fsync(7)):
        ring.prepare(operation)
        finish(ring)
    assert [result for _, result in ring.history] == [-errno.EIO, 0, 0, 0, 0]
    assert performed == [Opcode.CLOSE, Opcode.FSYNC]
    ring.close()


def test_a_close_that_fails_has_closed(finish: Finish, descriptor: int) -> None:
    ring = SimulatedRing(faults=[Fault(Opcode.CLOSE, result=-errno.EIO)])
    ring.prepare(operations.close(descriptor))
    assert set(finish(ring).values()) == {-errno.EIO}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    ring.close()


def test_cancels_hit_and_miss(finish: Finish) -> None:
    outcomes = set()
    for seed in range(20):
        ring = SimulatedRing(seed)
        ring.cancel(ring.prepare(Operation(Opcode.NOP)))
        outcomes |= set(finish(ring).values())
        ring.close()
    assert outcomes == {0, -errno.ECANCELED}


def test_a_missing_opcode_is_said_and_refused(finish: Finish, descriptor: int) -> None:
    ring = SimulatedRing(missing_opcodes=[Opcode.FTRUNCATE])
    assert not ring.supports(Opcode.FTRUNCATE)
    assert ring.supports(Opcode.WRITE)
    ring.prepare(operations.ftruncate(descriptor, 5))
    assert set(finish(ring).values()) == {-errno.EINVAL}
    ring.close()


@pytest.mark.parametrize(
    "options",
    [
        {"nth": 0, "result": -5},
        {"result": 0},
        {"result": 5},
        {"short": -1},
        {"short": 1, "result": -5},
        {"result": -5, "probability": 0},
        {"result": -5, "probability": 1.5},
    ],
)
def test_a_fault_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fault|nth|probability"):
        Fault(Opcode.WRITE, **options)


async def test_the_example_of_the_docstring_holds(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ring = SimulatedRing(seed=7, faults=[Fault(Opcode.FSYNC, 1, result=-errno.EIO)])
    with pytest.raises(OperationError):
        async with run_ring(ring) as opened, opened.create(path) as writer:
            await writer.write(b"lost")
            await writer.commit()
    assert not os.path.exists(path)
    assert not any(
        operation.opcode is Opcode.RENAMEAT for operation, result in ring.history if result == 0
    )
    assert uringio.RingFeatures("simulated", 8, 16).notes == []


def test_more_completions_than_the_queue_holds_come_later(finish: Finish) -> None:
    ring = SimulatedRing(1, completion_entries=2)
    tokens = [ring.prepare(Operation(Opcode.NOP)) for _ in range(20)]
    reaped, refused = [], 0
    while ring.in_flight:
        refused += ring.submit() > 0
        reaped.append(ring.reap())
    assert max(map(len, reaped)) == 2
    assert sorted(token for completions in reaped for token, _ in completions) == tokens
    while ring.submit():
        pass
    ring.close()


def test_nothing_is_taken_while_the_completion_queue_is_full() -> None:
    ring = SimulatedRing(2, completion_entries=1)
    for _ in range(10):
        ring.prepare(Operation(Opcode.NOP))
    while ring.prepared:
        ring.submit()
    for _ in range(5):  # by then all are done, and one has been taken at a time
        ring.reap()
    ring.prepare(Operation(Opcode.NOP))
    while ring.in_flight > 2:
        assert ring.submit() == 1
        ring.reap()
    while ring.in_flight:
        ring.submit()
        ring.reap()
    ring.close()


def test_what_is_held_back_waits_for_its_release(finish: Finish) -> None:
    ring = SimulatedRing(3, late=1.0)
    token = ring.prepare(Operation(Opcode.NOP))
    while ring.submit():
        pass
    assert [ring.reap() for _ in range(20)] == [[]] * 20
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ring.wakeup_fd)
    ring.release()
    os.eventfd_read(ring.wakeup_fd)
    assert finish(ring) == {token: 0}
    ring.close()


def test_a_healed_ring_does_nothing_wrong(finish: Finish) -> None:
    fault = Fault(Opcode.NOP, result=-errno.EIO, every=True)
    ring = SimulatedRing(3, late=1.0, faults=[fault])
    ring.heal()
    ring.prepare(Operation(Opcode.NOP))
    assert set(finish(ring).values()) == {0}
    assert not ring.faults_hit
    ring.close()
    ring.heal()  # as who ends a run does with each ring there was


def test_what_was_begun_can_be_looked_at(descriptor: int) -> None:
    ring = SimulatedRing(4)
    ring.prepare_chain([operations.write(descriptor, b"1", 0, 1), operations.fsync(descriptor)])
    assert ring.begun() == [], "nothing was handed over"
    while ring.submit():
        pass
    [[write, fsync]] = ring.begun()
    assert (write.opcode, fsync.opcode) == (Opcode.WRITE, Opcode.FSYNC)
    while ring.in_flight:
        ring.reap()
    assert ring.begun() == []
    ring.close()
