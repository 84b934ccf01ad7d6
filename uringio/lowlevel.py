"""The sharp tools: the layers below the public API, for who builds something of their own.

What these names guarantee stands in their docstrings; what they ask of the caller too: memory stays
alive and unmoved while an operation is in flight.
"""

from uringio._ring import operations, small_files
from uringio._ring.features import RingFeatures
from uringio._ring.increment import Increment, Slot
from uringio._ring.libc import file_system_type
from uringio._ring.many import Many
from uringio._ring.operations import Opcode, Operation
from uringio._ring.page_cache import forget_clean_pages
from uringio._ring.pool import BufferPool, default_slots
from uringio._ring.ring import Completion, RingCounts, RingLike
from uringio._ring.sizing import DeviceFacts, Sizes, choose_sizes, suggest
from uringio._ring.threads import ThreadRing
from uringio._ring.uring import UringRing
from uringio._trio.opening import OpenFile, open_file
from uringio._trio.preallocation import Preallocation
from uringio._trio.publish import Place, publish_steps, run_steps
from uringio._trio.reactor import Reactor
from uringio._trio.rings import run_ring
from uringio._trio.slots import SlotQueue
from uringio._trio.write_behind import WriteBehind

__all__ = [
    "BufferPool",
    "Completion",
    "DeviceFacts",
    "Increment",
    "Many",
    "Opcode",
    "OpenFile",
    "Operation",
    "Place",
    "Preallocation",
    "Reactor",
    "RingCounts",
    "RingFeatures",
    "RingLike",
    "Sizes",
    "Slot",
    "SlotQueue",
    "ThreadRing",
    "UringRing",
    "WriteBehind",
    "choose_sizes",
    "default_slots",
    "file_system_type",
    "forget_clean_pages",
    "open_file",
    "operations",
    "publish_steps",
    "run_ring",
    "run_steps",
    "small_files",
    "suggest",
]
