"""What a case is: one rule of PROTOCOL.md, and a function that looks whether a server keeps it.

A case ends in one of three ways. It returns: the server kept the rule. It raises FailedError: the
server did not, and the error says what was to come and what came. It raises SkippedError: the rule
cannot be looked at here, and the reason is reported; a skipped case is never a passed one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uringd.conformance.target import Target
    from uringd.wire import ErrorCode

Look = Callable[["Target"], Awaitable[None]]


class FailedError(Exception):
    """The server did not keep the rule."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected = expected
        self.got = got


class SilentError(FailedError):
    """Nothing came within the time of one wait."""


class RefusalError(FailedError):
    """A request was refused that was to be granted."""

    def __init__(self, code: ErrorCode, got: str) -> None:
        super().__init__("the request to be granted", got)
        self.code = code


class SkippedError(Exception):
    """The rule cannot be looked at on this server, or from here; the text says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One rule, with an id that stays the same for as long as the rule does."""

    id: str
    section: str  # the heading of PROTOCOL.md
    requirement: str  # one sentence
    look: Look
    needs: tuple[str, ...] = ()  # features of HELLO, without which the case is skipped
    codes: tuple[ErrorCode, ...] = ()  # error codes that the case is about
    vectors: tuple[str, ...] = ()  # the malformed vectors whose kind it sends to a server


class Section:
    """The cases of one heading. A case's docstring is its requirement."""

    def __init__(self, prefix: str, heading: str) -> None:
        self.prefix = prefix
        self.heading = heading
        self.cases: list[Case] = []

    def add(
        self,
        number: int,
        requirement: str,
        look: Look,
        *,
        needs: tuple[str, ...] = (),
        codes: tuple[ErrorCode, ...] = (),
        vectors: tuple[str, ...] = (),
    ) -> None:
        """Add a case of a table."""
        case_id = f"{self.prefix}-{number:03}"
        sentence = " ".join(requirement.split())
        self.cases.append(Case(case_id, self.heading, sentence, look, needs, codes, vectors))

    def __call__(
        self,
        number: int,
        *codes: ErrorCode,
        needs: tuple[str, ...] = (),
        vectors: tuple[str, ...] = (),
    ) -> Callable[[Look], Look]:
        """Add the function below as a case."""

        def keep(look: Look) -> Look:
            self.add(number, look.__doc__ or "", look, needs=needs, codes=codes, vectors=vectors)
            return look

        return keep


def same(what: str, expected: object, got: object) -> None:
    """Fail unless two values are equal."""
    if expected != got:
        raise FailedError(f"{what}: {expected!r}", repr(got))


def holds(condition: object, expected: str, got: object) -> None:
    """Fail unless a condition holds."""
    if not condition:
        raise FailedError(expected, str(got))
