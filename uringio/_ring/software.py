"""What the rings share that are no io_uring: taking operations, and many writes one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uringio._ring.many import IN_FLIGHT_MAX
from uringio._ring.operations import write
from uringio._ring.ring import OwnedRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._ring.many import Many
    from uringio._ring.operations import Operation
    from uringio._ring.ring import Completion


@dataclass(slots=True)
class _Run:
    """Many writes under way: `tokens` of those in flight, with their place in the arrays."""

    many: Many
    token: int
    next: int = 0
    stop: bool = False
    tokens: dict[int, int] = field(default_factory=dict)


class SoftwareRing(OwnedRing):
    """A ring that does operations itself, as plain system calls."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = 0
        self._next_token = 1
        self._runs: dict[int, _Run] = {}

    def _take(self, tokens: range, operations: Sequence[Operation]) -> None:
        """Keep operations that are done in order until `submit`."""
        raise NotImplementedError

    def _take_back(self, token: int) -> bool:
        """Drop the operations whose first has that token; False: they were submitted."""
        raise NotImplementedError

    def cancel(self, token: int) -> None:
        """Ask for an early end of an operation."""
        raise NotImplementedError

    def prepare(self, operation: Operation) -> int:
        """Take one operation; the result is its token."""
        return self.prepare_chain([operation])[0]

    def prepare_chain(self, operations: Sequence[Operation]) -> range:
        """Take soft-linked operations, all or none; the result is their tokens, in order."""
        self._check_owner()
        self._check_chain(len(operations))
        tokens = range(self._next_token, self._next_token + len(operations))
        self._take(tokens, operations)
        self._next_token = tokens.stop
        self.in_flight += len(tokens)
        return tokens

    def withdraw(self, tokens: Sequence[int]) -> bool:
        """Take an operation, or a whole chain, back that was not submitted."""
        self._check_owner()
        if not self._take_back(tokens[0]):
            return False
        self.in_flight -= len(tokens)
        return True

    def prepare_many(self, many: Many) -> int:
        """Take writes in no order; the token completes when all have ended."""
        self._check_owner()
        run = _Run(many, self._next_token)
        self._next_token += 1
        self.in_flight += 1
        self._fill(run)
        return run.token

    def _fill(self, run: _Run) -> None:
        many = run.many
        while not run.stop and len(run.tokens) < IN_FLIGHT_MAX and run.next < len(many.views):
            at = run.next
            view, offset = many.views[at], many.offsets[at]
            token = self.prepare(write(many.fd, view, offset, len(view), flags=many.flags))
            run.tokens[token] = at
            run.next = at + 1
            self._runs[token] = run

    def _cancel_many(self, token: int) -> None:
        """Begin no more of many writes, and cancel those in flight."""
        for run in {id(run): run for run in self._runs.values() if run.token == token}.values():
            run.stop = True
            for member in list(run.tokens):
                self.cancel(member)

    def _settle(self, completions: list[Completion]) -> list[Completion]:
        """Sort the results of many writes out of completions, and go on with the next ones."""
        if not self._runs:
            return completions
        others: list[Completion] = []
        for token, result in completions:
            run = self._runs.pop(token, None)
            if run is None:
                others.append((token, result))
                continue
            run.many.results[run.tokens.pop(token)] = result
            run.stop = run.stop or result <= 0
            self._fill(run)
            if not run.tokens:
                self.in_flight -= 1
                others.append((run.token, 0))
        return others
