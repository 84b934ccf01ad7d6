"""Shipped for tests: a ring that is simulated, with the same surface as the real ones."""

from uringio.testing.faults import Fault
from uringio.testing.simulated import SimulatedRing

__all__ = ["Fault", "SimulatedRing"]
