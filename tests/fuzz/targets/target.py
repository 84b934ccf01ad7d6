"""What a fuzz target is: a function that judges one input, and what helps to find such inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Mutate = Callable[[bytes, int, int, Callable[[bytes, int], bytes]], bytes]
"""(data, most bytes to return, seed, blind mutation) -> other data."""


def no_seeds() -> dict[str, bytes]:
    return {}


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder with its invariants.

    run raises for an input that breaks one, and must not depend on anything but the input. replay
    is run with all that run leaves to chance (a way to cut the stream, say) done in turn.
    seeds are inputs to begin with, by name. No input is longer than bytes_max.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], dict[str, bytes]] = no_seeds
    replay: Callable[[bytes], None] | None = None
    mutate: Mutate | None = None
    bytes_max: int = 4096

    def check(self, data: bytes) -> None:
        """Judge an input as thoroughly as can be."""
        (self.replay or self.run)(data)
