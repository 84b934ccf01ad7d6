"""Big writes at the speed of the disk, awaited: io_uring for trio, durable and atomic."""

from uringio._ring.features import RingFeatures
from uringio._ring.increment import Slot
from uringio._ring.probe import Probe, probe
from uringio._trio.file import UringFile
from uringio._trio.histogram import Histogram
from uringio._trio.modes import FileStatistics
from uringio._trio.recovery import Recovered
from uringio._trio.replace_steps import Replaced
from uringio._trio.rings import Ring, open_ring, write_file
from uringio._trio.statistics import RingStatistics
from uringio._trio.writer import BulkWriter, Receipt
from uringio.exceptions import (
    AccessError,
    BrokenError,
    ClosedError,
    ForkedError,
    IncompleteError,
    NoSpaceError,
    OperationError,
    PendingReplaceError,
    TargetExistsError,
    TargetMissingError,
    UnavailableError,
    UringioError,
    WrongThreadError,
)

__all__ = [
    "AccessError",
    "BrokenError",
    "BulkWriter",
    "ClosedError",
    "FileStatistics",
    "ForkedError",
    "Histogram",
    "IncompleteError",
    "NoSpaceError",
    "OperationError",
    "PendingReplaceError",
    "Probe",
    "Receipt",
    "Recovered",
    "Replaced",
    "Ring",
    "RingFeatures",
    "RingStatistics",
    "Slot",
    "TargetExistsError",
    "TargetMissingError",
    "UnavailableError",
    "UringFile",
    "UringioError",
    "WrongThreadError",
    "open_ring",
    "probe",
    "write_file",
]
