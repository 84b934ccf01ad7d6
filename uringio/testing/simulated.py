"""SimulatedRing: a ring whose timing and faults come from a seed.

It has neither threads nor a kernel ring. Operations are done as plain system calls on real
descriptors, and a random generator decides when and with what result. What it does is what the
kernel may do, and seldom does while somebody looks:

- Chains complete in any order and some reaps late; members of one chain complete in order. Some
  are held back by a device that does not answer, until `release`.
- An operation touches its memory at the last moment, so memory that was given away too early shows
  as wrong bytes in the file.
- A `submit` may take nothing for a while, or the first ones only (EAGAIN, EBUSY, EINTR of
  io_uring_enter(2)).
- More completions than the CQ holds wait for the next `reap`, none is lost, and until then no
  `submit` takes anything (IORING_FEAT_NODROP).
- A `cancel` hits or misses; what it hits breaks its chain.
- Only some failures break a chain: behind an fsync or a rename that failed, the rest is done.
- After an fsync that failed, the next one of the same descriptor does nothing and answers 0; with
  a disk, it succeeds and brings nothing of what the failed one was for. A close that failed has
  closed. All are so on Linux.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uringio._ring import libc
from uringio._ring.execute import BREAKS_LINKS, breaks_chain, execute
from uringio._ring.features import RingFeatures
from uringio._ring.operations import O_DIRECT, Opcode, Operation
from uringio._ring.ring import RingCounts
from uringio._ring.software import SoftwareRing
from uringio.exceptions import ClosedError
from uringio.testing.faults import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from uringio._ring.increment import Increment
    from uringio._ring.pool import BufferPool
    from uringio._ring.ring import Completion
    from uringio.testing.disk import SimulatedDisk
    from uringio.testing.faults import Fault

REAPS_MAX = 3
"""An operation that could go on waits for this many reaps at the most."""

REFUSAL_CHANCE = 0.1
"""How often a `submit` takes nothing. Two in a row are the most, so that a loop ends."""

MEMORY_FIRST = 16_384
"""Index of the first registered memory that is no slot: behind those of the longest pool."""

CANCEL_CHANCE = 0.5
"""How often a `cancel` comes in time."""


@dataclass(slots=True)
class _Chain:
    tokens: range
    operations: list[Operation]
    delay: int
    late: bool
    done: int = 0


class SimulatedRing(SoftwareRing):
    """A ring for tests: the same `seed` and the same calls give the same completions.

    `faults` is the plan of what goes wrong, see `Fault`; `faults_hit` counts what did.
    `missing_opcodes` are operations that the ring says it has not. `disk` is one whose power can be
    cut. `perform` does an operation, in the disk's place or in the system call's, and returns its
    result or -errno. `late` (0 to 1) is how often an operation, or a chain, is held back until
    `release` or `heal`. `entries` and `completion_entries` are the sizes of the queues.

    `history` is a list of (operation, result) in order of execution, without the operations'
    memory: the proof of what was done before what. Example:

        faults = [Fault(Opcode.FSYNC, 1, result=-errno.EIO)]
        ring = SimulatedRing(seed=7, faults=faults)
        with pytest.raises(OperationError):
            async with run_ring(ring) as opened, opened.create(path) as writer:
                await writer.write(b"lost")
                await writer.commit()
        assert not os.path.exists(path)
        assert not any(operation.opcode is Opcode.RENAMEAT for operation, result in ring.history
                       if result == 0)
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        faults: Sequence[Fault] = (),
        missing_opcodes: Collection[Opcode] = (),
        entries: int = 256,
        completion_entries: int | None = None,
        late: float = 0.0,
        disk: SimulatedDisk | None = None,
        perform: Callable[[Operation], int] | None = None,
    ) -> None:
        super().__init__()
        self.features = RingFeatures(
            "simulated",
            entries,
            entries * 2 if completion_entries is None else completion_entries,
            missing_opcodes=frozenset(missing_opcodes),
        )
        self.wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.history: list[tuple[Operation, int]] = []
        self.faults_hit: Counter[Fault] = Counter()
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311  # reproducible is what it has to be
        self._faults = tuple(faults)
        self._late = late
        self._disk = disk
        self._perform = perform or (execute if disk is None else disk.perform)
        self._counts: Counter[Opcode] = Counter()
        self._lost: set[int] = set()
        self._prepared: list[_Chain] = []
        self._submitted: list[_Chain] = []
        self._completed: list[Completion] = []
        self._cancelled: set[int] = set()
        self._refusals = 0
        self._registered: set[int] = set()
        self._memories: set[int] = set()
        self.counts = RingCounts(0, 0)

    @property
    def prepared(self) -> int:
        """Operations that `submit` has still to hand over."""
        # Asked in every pass of the scheduler, and mostly there is none.
        return sum(len(chain.tokens) for chain in self._prepared) if self._prepared else 0

    def supports(self, opcode: Opcode) -> bool:
        """Whether it is not among the `missing_opcodes`."""
        return opcode not in self.features.missing_opcodes

    def release(self) -> None:
        """Go on with the operations that were held back."""
        for chain in (*self._prepared, *self._submitted):
            chain.late = False
        if self._unusable is None:  # closed, it holds nothing back
            os.eventfd_write(self.wakeup_fd, 1)

    def heal(self) -> None:
        """Let nothing go wrong any more, and hold nothing back."""
        self._faults, self._late = (), 0.0
        self.release()

    def begun(self) -> list[list[Operation]]:
        """List the chains that were handed over, as far as their members have not been done.

        A process that is killed leaves any of them done, or some of their first members.
        """
        left = (chain.operations[chain.done :] for chain in self._submitted)
        return [operations for operations in left if operations]

    def _take(self, tokens: range, operations: Sequence[Operation]) -> None:
        late = self._late > 0 and self._random.random() < self._late
        self._prepared.append(_Chain(tokens, list(map(_hold, operations)), self._delay(), late))

    def _take_back(self, token: int) -> bool:
        before = len(self._prepared)
        self._prepared = [chain for chain in self._prepared if chain.tokens[0] != token]
        return len(self._prepared) < before

    def cancel(self, token: int) -> None:
        """Mark an operation that has not been done for -ECANCELED, or come too late."""
        self._check_owner()
        self._cancel_many(token)
        for chain in (*self._prepared, *self._submitted):
            if token in chain.tokens[chain.done :] and self._hits(token):
                self._cancelled.add(token)
                chain.delay, chain.late = 0, False
                os.eventfd_write(self.wakeup_fd, 1)

    def submit(self) -> int:
        """Hand over what was prepared, or nothing; the result counts what is left."""
        self._check_owner()
        if not self._prepared:
            return 0
        self._refusals += 1
        taken = len(self._prepared)
        if self._completed:  # the CQ is full: EBUSY
            taken = 0
        elif self._refusals <= 2 and self._random.random() < REFUSAL_CHANCE:
            taken = self._random.randrange(taken)
        refused = taken < len(self._prepared)
        self.counts = RingCounts(self.counts.enters + 1, self.counts.retries + refused)
        if not refused:
            self._refusals = 0
        if taken:
            self._submitted += self._prepared[:taken]
            del self._prepared[:taken]
            os.eventfd_write(self.wakeup_fd, 1)
        return self.prepared

    def reap(self) -> list[Completion]:
        """Do what has come due, in any order, and tell the results."""
        self._check_owner()
        with contextlib.suppress(BlockingIOError):  # somebody asked without being woken
            os.eventfd_read(self.wakeup_fd)
        for chain in self._random.sample(self._submitted, len(self._submitted)):
            while chain.done < len(chain.tokens) and chain.delay == 0 and not chain.late:
                self._completed += self._step(chain)
            chain.delay = max(0, chain.delay - 1)
        self._submitted = [c for c in self._submitted if c.done < len(c.tokens)]
        room = self.features.completion_entries
        completions, self._completed = self._completed[:room], self._completed[room:]
        self.in_flight -= len(completions)
        if self._completed or not all(chain.late for chain in self._submitted):
            os.eventfd_write(self.wakeup_fd, 1)
        return self._settle(completions)

    def register(self, pool: BufferPool) -> None:
        """Take every slot for registered, so that fixed operations are what gets tested."""
        for increment in pool.increments:
            self.register_increment(increment)

    def register_increment(self, increment: Increment) -> None:
        """Take slots that the pool grows by for registered."""
        self._check_owner()
        for slot in increment.slots:
            slot.buffer_index = slot.index
            self._registered.add(slot.index)
        self.features.registered_slots = len(self._registered)

    def unregister_increment(self, increment: Increment) -> None:
        """Forget slots: a fixed operation that still uses one gets EFAULT."""
        self._check_owner()
        for slot in increment.slots:
            slot.buffer_index = -1
            self._registered.discard(slot.index)
        self.features.registered_slots = len(self._registered)

    def register_memory(self, address: int, length: int) -> int:  # noqa: ARG002  # RingLike's
        """Take memory beside the pool for registered."""
        self._check_owner()
        index = max(self._memories, default=MEMORY_FIRST - 1) + 1
        self._memories.add(index)
        return index

    def unregister_memory(self, index: int) -> None:
        """Forget it: a fixed operation that still uses it gets EFAULT."""
        self._check_owner()
        self._memories.discard(index)

    def close(self) -> None:
        """Close the wake-up. Nothing may be in flight."""
        if self._unusable is None:
            self._unusable = ClosedError
            os.close(self.wakeup_fd)

    def _delay(self) -> int:
        return self._random.randint(0, REAPS_MAX)

    def _hits(self, token: int) -> bool:
        """Whether a cancel comes in time: by the token, for who cancels several has no order."""
        drawn = zlib.crc32(f"{self._seed}/{token}".encode())
        return drawn < CANCEL_CHANCE * (1 << 32)

    def _step(self, chain: _Chain) -> list[Completion]:
        """Do the next member of a chain; an error ends the others with it where Linux does so."""
        results = [self._result(chain.tokens[chain.done], chain.operations[chain.done])]
        operation = chain.operations[chain.done]
        refused = results[0] in {-errno.ECANCELED, -errno.EBADF}  # before it began
        stops = refused or operation.opcode in BREAKS_LINKS
        if stops and breaks_chain(operation, results[0]):
            results += [-errno.ECANCELED] * (len(chain.tokens) - chain.done - 1)
        first, chain.done, chain.delay = chain.done, chain.done + len(results), self._delay()
        members = chain.operations[first : chain.done]
        # Without its memory: a history must not keep a pool alive.
        self.history += zip((replace(op, data=None) for op in members), results, strict=True)
        chain.operations[first : chain.done] = [Operation(Opcode.NOP)] * len(results)
        return list(zip(chain.tokens[first : chain.done], results, strict=True))

    def _result(self, token: int, operation: Operation) -> int:
        opcode, fd = PLAIN.get(operation.opcode, operation.opcode), operation.fd
        if token in self._cancelled:
            self._cancelled.remove(token)
            return -errno.ECANCELED
        if not self.supports(operation.opcode):
            return -errno.EINVAL
        index = operation.buffer_index
        if index >= 0 and index not in self._registered and index not in self._memories:
            return -errno.EFAULT
        self._counts[opcode] += 1
        fault = self._fault(opcode)
        if opcode is Opcode.FSYNC and fd in self._lost:
            return 0
        result = 0
        if fault is None or opcode is Opcode.CLOSE:
            result = self._perform(operation)
        elif fault.short:
            length = _short_length(operation, fault.short)
            result = self._perform(replace(operation, length=length))
        if fault is not None and fault.result:
            result = fault.result
        if opcode is Opcode.FSYNC and result < 0:
            self._lose(fd)
        elif opcode is Opcode.CLOSE:
            self._lost.discard(fd)
        return result

    def _lose(self, fd: int) -> None:
        if self._disk is None:
            self._lost.add(fd)
            return
        with contextlib.suppress(OSError):  # a bad descriptor was what failed
            self._disk.lose(fd)

    def _fault(self, opcode: Opcode) -> Fault | None:
        for fault in self._faults:
            if fault.fits(opcode, self._counts[opcode]) and (
                fault.probability == 1 or self._random.random() < fault.probability
            ):
                self.faults_hit[fault] += 1
                return fault
        return None


def _hold(operation: Operation) -> Operation:
    """Export the memory, as a real ring does: it cannot be resized while it is in flight."""
    data = None if operation.data is None else memoryview(operation.data)
    return replace(operation, data=data)


def _short_length(operation: Operation, short: int) -> int:
    """Cut a length to `short`, or to whole blocks of it where the descriptor is direct."""
    if O_DIRECT and fcntl.fcntl(operation.fd, fcntl.F_GETFL) & O_DIRECT:
        alignment = libc.statx_direct_alignment(operation.fd)
        block = alignment.offset if alignment is not None and alignment.offset else 4096
        short = max(block, short - short % block)
    return min(short, operation.length)
