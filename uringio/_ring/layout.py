"""Where an operation's fields go in an SQE: the record that C turns into one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from uringio import _binding
from uringio._ring import libc
from uringio._ring.operations import Opcode

if TYPE_CHECKING:
    from uringio._ring.operations import Operation

ffi: Any = _binding.ffi

RECORD = struct.Struct("=BBhiQQIIQ")
"""struct uringio_record: opcode, sqe_flags, buffer_index (or -1), fd, offset, address, length,
op_flags, token."""
RECORD_BYTES = RECORD.size


def lay_out(op: Operation) -> tuple[object, int, int, int, int]:
    """Say what goes where in an SQE, as liburing's io_uring_prep_*() functions have it.

    What has to be held until the completion; offset, address, length and flags.
    """
    opcode, offset, address, length, flags = op.opcode, op.offset, op.address, op.length, op.flags
    kept: object = op
    if op.data is not None:
        if not address:
            memory = ffi.from_buffer(op.data)
            address = int(ffi.cast("uintptr_t", memory))
            kept = (op, memory)
    elif opcode is Opcode.FALLOCATE:
        address, length = op.length, op.mode
    elif opcode is Opcode.FTRUNCATE:
        offset, length = op.length, 0
    elif opcode is Opcode.ASYNC_CANCEL:
        kept = None
    elif op.path:
        path = ffi.new("char[]", op.path)
        address = int(ffi.cast("uintptr_t", path))
        length = op.mode
        other = None
        if opcode is Opcode.OPENAT2:
            how = libc.open_how(op.flags, op.mode)
            other = ffi.from_buffer(how)
            length, flags = len(how), 0
        elif op.other_path:
            other = ffi.new("char[]", op.other_path)
            length = op.other_fd & 0xFFFFFFFF
        if other is not None:
            offset = int(ffi.cast("uintptr_t", other))
        kept = (op, path, other)
    return kept, offset, address, length, flags
