"""Shipped for tests: a ring and a disk that are simulated, to see what code does when they fail."""

from uringio.testing.disk import SimulatedDisk
from uringio.testing.faults import Fault
from uringio.testing.simulated import SimulatedRing

__all__ = ["Fault", "SimulatedDisk", "SimulatedRing"]
