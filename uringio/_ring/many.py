"""Many writes of one descriptor, as arrays: what a ring keeps going without being asked for each.

The next write starts where the completion of one before is seen, in C where the ring is io_uring,
so a fixed number is in flight however many there are, and none costs a Python object of its own.
"""

from __future__ import annotations

import ctypes
import errno
from array import array
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from uringio import _binding

if TYPE_CHECKING:
    from collections.abc import Sequence

ffi: Any = _binding.ffi
_addressof, _first_byte = ctypes.addressof, ctypes.c_char.from_buffer
"""A quarter of what cffi's from_buffer costs, for memory that may be written to."""

MANY_MAX = 16
"""Of these at a time in one ring."""

IN_FLIGHT_MAX = 256
"""Writes in flight for one descriptor: a queue depth that any one device is busy with."""

NOT_BEGUN = -errno.ECANCELED
STARTED = -(1 << 31)
"""What stands in `results` until there is a result: for who looks while they run."""


@dataclass(slots=True)
class Many:
    """Writes of `views` at `offsets`, in no order; the `results` are as in a completion.

    The first that fails, or takes nothing, keeps those behind it from being begun. All arrays have
    one item for each write; lengths are in bytes, 1 to LENGTH_MAX.
    """

    fd: int
    flags: int
    views: Sequence[memoryview]
    addresses: array[int]
    lengths: array[int]
    offsets: array[int]
    results: array[int] = field(init=False)

    def __post_init__(self) -> None:
        """Make room for the results."""
        self.results = array("i", [NOT_BEGUN]) * len(self.views)


def addresses_of(views: Sequence[memoryview]) -> array[int]:
    """Tell where memory begins. The views keep it there for as long as they live.

    Without the binding an odd address stands for memory that is read-only: it counts as unaligned.
    """
    return array(
        "Q",
        [
            _addressof(_first_byte(view)) if view and not view.readonly else _address_of(view)
            for view in views
        ],
    )


def _address_of(view: memoryview) -> int:
    """Tell where memory begins that ctypes does not take: it is read-only, or empty."""
    return 1 if ffi is None else int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


def all_multiples(values: Sequence[int], unit: int) -> bool:
    """Whether all are multiples of `unit`, a power of two."""
    return not reduce(or_, values, 0) & (unit - 1)
