"""The io_uring ring.

What the kernel does, and what follows for this file (io_uring_setup(2), measured in tests):

- SINGLE_ISSUER | DEFER_TASKRUN runs completion work only when this thread enters the kernel, so it
  never interrupts Python in between. The price: epoll on the ring's own descriptor misses every
  wake-up then. A registered eventfd does not. Its count says nothing about how much there is to
  reap; the reap loop in C says that (see liburing.csrc.c).
- Flags came one by one with Linux 5.18 to 6.1. A kernel answers EINVAL to what it does not know, so
  flags are peeled off from the newest on, and what was not to be had is noted.
- IORING_REGISTER_BUFFERS_UPDATE (5.13) does not wait for operations in flight: each holds on to
  the buffer it was given. So a sparse table (5.19) is filled and emptied under load. SINGLE_ISSUER
  lets only the thread that submits do it.
- The kernel may take a batch in part. What it left stays in the submission queue and goes first
  next time; new records wait in our batch until the whole of it fits.
"""

from __future__ import annotations

import errno
import os
import struct
from threading import get_ident
from typing import TYPE_CHECKING, Any

from uringio import _binding
from uringio._ring.beside import Beside, Memories
from uringio._ring.features import RingFeatures
from uringio._ring.layout import RECORD, RECORD_BYTES, lay_out
from uringio._ring.operations import Opcode, Operation
from uringio._ring.ring import OwnedRing, RingCounts
from uringio._ring.unavailable import reason, why_unavailable
from uringio.exceptions import BrokenError, ClosedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._ring.increment import Increment
    from uringio._ring.many import Many
    from uringio._ring.pool import BufferPool
    from uringio._ring.ring import Completion

lib: Any = _binding.lib
ffi: Any = _binding.ffi

SETUP_FLAGS = {
    "SUBMIT_ALL": 1 << 7,  # 5.18: one bad SQE does not hold up those behind it
    "COOP_TASKRUN": 1 << 8,  # 5.19: no interrupt to run completion work
    "TASKRUN_FLAG": 1 << 9,  # 5.19: the ring says when such work is waiting
    "SINGLE_ISSUER": 1 << 12,  # 6.0
    "DEFER_TASKRUN": 1 << 13,  # 6.1: completion work runs only when we reap
}
SETUP_ATTEMPTS = (
    ("SUBMIT_ALL", "TASKRUN_FLAG", "SINGLE_ISSUER", "DEFER_TASKRUN"),
    ("SUBMIT_ALL", "COOP_TASKRUN", "TASKRUN_FLAG", "SINGLE_ISSUER"),
    ("SUBMIT_ALL", "COOP_TASKRUN", "TASKRUN_FLAG"),
    ("SUBMIT_ALL",),
    (),
)
IOSQE_IO_LINK = 1 << 2

ENTRIES_MIN, ENTRIES_MAX = 8, 4096
"""Queue depth in operations: a publish chain must fit, and 4,096 SQEs are 256 KiB of ring."""

_pack_into = RECORD.pack_into
COMPLETION = struct.Struct("=Qi4x")
"""struct uringio_completion: token, result (and flags, which nobody needs)."""

BROKEN_AFTER_REFUSALS = 10_000
"""Submits in a row that the kernel refuses with EAGAIN or EBUSY before the ring counts as broken:
each comes after a reap, so that many mean that nothing moves any more."""


class UringRing(OwnedRing):
    """One io_uring instance with a queue depth of `entries` (8 to 4,096, rounded up to 2^n).

    Raises `UnavailableError` with the reason and the mend where the kernel gives no ring.
    """

    def __init__(self, entries: int = 256) -> None:
        if not ENTRIES_MIN <= entries <= ENTRIES_MAX:
            raise ValueError(f"entries must be {ENTRIES_MIN} to {ENTRIES_MAX}, not {entries}")
        if lib is None:
            raise UnavailableError(why_unavailable(errno.ENOSYS, binding=_binding.missing))
        super().__init__()
        self._sparse = False
        self._memories = Memories()
        try:
            self.wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as exc:
            self._unusable = ClosedError
            raise UnavailableError(why_unavailable(exc.errno or errno.EMFILE)) from exc
        self._ring = ffi.new("struct io_uring *")
        entries = 1 << (entries - 1).bit_length()
        self.features = self._set_up(entries)
        try:
            _check(lib.io_uring_register_eventfd(self._ring, self.wakeup_fd))
            self.features.missing_opcodes = self._missing_opcodes()
        except BaseException:
            self.close()
            raise
        self._entries = self.features.entries
        self._batch = bytearray(entries * RECORD.size)
        self._batch_memory = ffi.from_buffer(self._batch)
        self._batched = 0
        self._filled = ffi.new("unsigned *")
        self._more = ffi.new("int *")
        self._reaped = bytearray(entries * 2 * COMPLETION.size)
        self._reaped_memory = ffi.from_buffer(self._reaped)
        self._next_token = 1
        self._held: dict[int, object] = {}
        self._left_in_queue = 0
        self._refusals = 0
        self._beside = Beside(entries)
        self._many: dict[int, tuple[Many, Any]] = {}

    def _set_up(self, entries: int) -> RingFeatures:
        params = ffi.new("struct io_uring_params *")
        result = 0
        for names in SETUP_ATTEMPTS:
            ffi.buffer(params)[:] = bytes(ffi.sizeof("struct io_uring_params"))
            params.flags = sum(SETUP_FLAGS[name] for name in names)
            result = lib.io_uring_queue_init_params(entries, self._ring, params)
            if result != -errno.EINVAL:
                break
        if result < 0:
            self._unusable = ClosedError
            os.close(self.wakeup_fd)
            raise UnavailableError(why_unavailable(-result))
        features = RingFeatures("io_uring", params.sq_entries, params.cq_entries, names)
        if names is not SETUP_ATTEMPTS[0]:
            lost = sorted(set(SETUP_ATTEMPTS[0]) - set(names))
            features.notes.append(f"this kernel does not take the ring flags {', '.join(lost)}")
        return features

    def _missing_opcodes(self) -> frozenset[Opcode]:
        supported = bytearray(max(Opcode) + 1)
        _check(lib.uringio_probe_opcodes(self._ring, ffi.from_buffer(supported), len(supported)))
        return frozenset(opcode for opcode in Opcode if not supported[opcode])

    @property
    def in_flight(self) -> int:
        """Operations prepared or submitted whose completion was not reaped yet."""
        return len(self._held)

    @property
    def prepared(self) -> int:
        """Operations that `submit` has still to hand over."""
        return self._batched + self._left_in_queue + self._beside.not_submitted

    @property
    def ready(self) -> bool:
        """Whether the CQ has something, or work is waiting that may make it."""
        return bool(lib.uringio_ready(self._ring))

    @property
    def counts(self) -> RingCounts:
        """System calls since it was set up."""
        return RingCounts(self._beside.memory.enters, self._beside.memory.retries)

    def supports(self, opcode: Opcode) -> bool:
        """Whether this kernel's io_uring has the operation."""
        return opcode not in self.features.missing_opcodes

    def prepare(self, operation: Operation) -> int:
        """Take one operation; the result is its token."""
        if self._unusable is not None or get_ident() != self._thread:
            self._check_owner()
        if self._batched == self._entries:
            self._make_room(1)
        return self._add(operation, 0)

    def prepare_chain(self, operations: Sequence[Operation]) -> range:
        """Take soft-linked operations, all or none; the result is their tokens, in order."""
        self._check_owner()
        self._check_chain(len(operations))
        self._make_room(len(operations))
        first, batched = self._next_token, self._batched
        last = len(operations) - 1
        try:
            for i, operation in enumerate(operations):
                self._add(operation, IOSQE_IO_LINK if i < last else 0)
        except BaseException:
            # A head without its end would be linked to whatever is prepared next.
            self._batched = batched
            for token in range(first, self._next_token):
                self._held.pop(token, None)
            raise
        return range(first, self._next_token)

    def withdraw(self, tokens: Sequence[int]) -> bool:
        """Take an operation, or a whole chain, out of the batch, if it is still there."""
        self._check_owner()
        batch, end = self._batch, self._batched * RECORD_BYTES
        for first in range(end - RECORD_BYTES, -1, -RECORD_BYTES):
            if RECORD.unpack_from(batch, first)[-1] == tokens[0]:
                break
        else:
            return False
        length = len(tokens) * RECORD_BYTES
        batch[first : end - length] = batch[first + length : end]
        self._batched -= len(tokens)
        for token in tokens:
            del self._held[token]
        return True

    def prepare_many(self, many: Many) -> int:
        """Take writes in no order; the token completes when all have ended."""
        self._check_owner()
        token = self._next_token
        self._many[token] = (many, self._beside.add(many, token))
        self._next_token += 1
        self._held[token] = many
        return token

    def cancel(self, token: int) -> None:
        """Ask the kernel for an early end (IORING_OP_ASYNC_CANCEL)."""
        self._check_owner()
        if token not in self._held:
            return
        targets = [token]
        if token in self._many:
            many, kept = self._many[token]
            targets = self._beside.stop(kept, many)
            os.eventfd_write(self.wakeup_fd, 1)  # nothing else would, if none was begun
        for target in targets:
            self._make_room(1)
            self._add(Operation(Opcode.ASYNC_CANCEL, address=target), 0)

    def submit(self) -> int:
        """Hand over what was prepared; the result counts what must wait for a later call.

        Raises `BrokenError` when the kernel refuses for good.
        """
        self._check_owner()
        if not self.prepared:
            return 0
        result = self._submit_batch()
        if result == 0 and self._batched:  # the queue was full and is empty now
            result = self._submit_batch()
        self._beside.not_submitted = False
        self._left_in_queue = lib.io_uring_sq_ready(self._ring) if result < 0 else 0
        if result in {-errno.EAGAIN, -errno.EBUSY}:
            self._refusals += 1
            if self._refusals < BROKEN_AFTER_REFUSALS:
                return self.prepared
        elif result == 0:
            self._refusals = 0
            return self.prepared
        raise BrokenError(f"the kernel takes no more operations: {os.strerror(-result)}")

    def _submit_batch(self) -> int:
        result: int = lib.uringio_submit(
            self._ring, self._beside.memory, self._batch_memory, self._batched, self._filled
        )
        if self._filled[0]:
            self._batched = 0
        return result

    def reap(self) -> list[Completion]:
        """Clear the wake-up and take the completions there are; wakes again if there are more."""
        self._check_owner()
        count = lib.uringio_reap(
            self._ring,
            self._beside.memory,
            self.wakeup_fd,
            self._reaped_memory,
            self.features.completion_entries,
            self._more,
        )
        if count < 0:
            raise BrokenError(f"completions cannot be reaped: {os.strerror(-count)}")
        if self._more[0]:  # others get their turn first: the event loop comes back
            os.eventfd_write(self.wakeup_fd, 1)
        reaped = memoryview(self._reaped)[: count * COMPLETION.size]
        held = self._held
        completions: list[Completion] = [
            completion
            for completion in COMPLETION.iter_unpack(reaped)
            if held.pop(completion[0]) is not None  # None: a cancel, of interest to nobody
        ]
        if self._many:
            self._left_in_queue = lib.io_uring_sq_ready(self._ring)
            for token, _ in completions:
                self._many.pop(token, None)
        return completions

    def register(self, pool: BufferPool) -> None:
        """Register the pool's slots, fewer where RLIMIT_MEMLOCK refuses some, and make room."""
        self._check_owner()
        self._sparse = self._memories.make_table(self._ring, pool.slots_max)
        self._register(pool.increments[0])
        if pool.slots_max > pool.slots_min and not self._sparse:
            self.features.note(
                "this kernel (before 5.19) has no sparse table of buffers: slots that the pool "
                "grows by are not registered"
            )

    def register_increment(self, increment: Increment) -> None:
        """Register slots that the pool grows by; without a sparse table none are."""
        self._check_owner()
        if self._sparse:
            self._register(increment)

    def unregister_increment(self, increment: Increment) -> None:
        """Empty the slots' entries of the table. No operation in flight may use them."""
        self._check_owner()
        count = sum(slot.buffer_index >= 0 for slot in increment.slots)
        if not count:
            return
        self._beside.unregister(increment)
        for slot in increment.slots:
            slot.buffer_index = -1
        self.features.registered_slots -= count
        result = lib.uringio_register_slots(self._ring, increment.first, 0, 0, count)
        if result != count:
            error = os.strerror(-result) if result < 0 else "some stayed"
            raise BrokenError(f"slots cannot be unregistered: {error}")

    def register_memory(self, address: int, length: int) -> int:
        """Register memory beside the pool in an entry of its own: its index, or -errno."""
        self._check_owner()
        return self._memories.register(self._ring, address, length)

    def unregister_memory(self, index: int) -> None:
        """Empty the memory's entry of the table."""
        self._check_owner()
        self._memories.unregister(self._ring, index)

    def _register(self, increment: Increment) -> None:
        wanted = count = len(increment.slots)
        address, slot_bytes = increment.address, increment.slot_bytes
        first = increment.first if self._sparse else -1
        result = -errno.ENOMEM
        while count > 0:
            # Of a table of their own all are registered or none; of a sparse one, those that fit.
            result = lib.uringio_register_slots(self._ring, first, address, slot_bytes, count)
            if result != -errno.ENOMEM or self._sparse:
                break
            count -= max(1, count // 8)
        count = max(result, 0)
        for slot in increment.slots[:count]:
            slot.buffer_index = slot.index
        if count:
            self._beside.register(increment, count)
        self.features.registered_slots += count
        if count < wanted:
            why = reason(-result if result < 0 else errno.ENOMEM)
            which = "of" if increment.first == 0 else "more, of"
            self.features.note(f"{wanted - count} {which} {wanted} slots are not registered: {why}")

    def close(self) -> None:
        """Give the ring back to the kernel. Nothing may be in flight."""
        if self._unusable is not None:
            return
        self._unusable = ClosedError
        if self._sparse or self.features.registered_slots:
            # The exit alone gives locked memory back later, and the next ring would get none.
            lib.io_uring_unregister_buffers(self._ring)
        lib.io_uring_queue_exit(self._ring)
        os.close(self.wakeup_fd)

    def _make_room(self, count: int) -> None:
        if self._batched + count > self._entries:
            self.submit()
        if self._batched + count > self._entries:
            raise BrokenError("the kernel takes no operations and the batch is full")

    def _add(self, op: Operation, sqe_flags: int) -> int:
        """Put an operation's record into the batch and hold its memory; the result is its token."""
        opcode = op.opcode
        if op.data is not None and op.address:  # every small write: it is in its record's order
            kept: object = op
            offset, address, length, flags = op.offset, op.address, op.length, op.flags
        else:
            kept, offset, address, length, flags = lay_out(op)
        token, batched = self._next_token, self._batched
        _pack_into(
            self._batch,
            batched * RECORD_BYTES,
            opcode,
            sqe_flags,
            op.buffer_index,
            op.fd,
            offset,
            address,
            length,
            flags,
            token,
        )
        self._next_token = token + 1
        self._batched = batched + 1
        self._held[token] = kept
        return token


def _check(result: int) -> None:
    if result < 0:
        raise UnavailableError(why_unavailable(-result))
