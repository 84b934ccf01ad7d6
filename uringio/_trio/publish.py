"""Publish: make a finished file durable, then visible under its name, then the name durable.

Which call makes which promise:
- fsync(file), after the completion of every write: the bytes and the size survive a power cut.
- rename: readers see the whole file or the old one, never a part. After the fsync, or the name
  could survive without the bytes.
- fsync(directory): the name survives a power cut. Before it, a crash may bring the old one back.

They go to the kernel as soft-linked chains, which break where a write fails or is short. (A hard
link would go on: an fsync after a failed write reports success, and the rename would publish a
hole.) They do not break at an fsync that fails: io_uring goes on as if nothing had been, and a
rename linked behind it names a file whose bytes are lost. So a chain ends behind what may fail
without breaking it, and the next one is submitted when its results are seen; only an fsync, which
does no harm, may still be linked there. For a publish that is two: up to the file's fsync, and the
rename with the directory's. An fsync that failed is never asked again: the kernel marks the pages
clean after the first error, and the second answer is a false 0.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from uringio._ring import operations
from uringio._ring.execute import BREAKS_LINKS, breaks_chain
from uringio._ring.operations import NAMES, RENAME_NOREPLACE, Opcode, Operation
from uringio._ring.short_writes import rest_of_write, write_error
from uringio.exceptions import operation_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringio._trio.reactor import Reactor

Durability = Literal["written", "durable", "published"]
DURABILITIES: tuple[Durability, ...] = ("written", "durable", "published")


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory."""

    dir_fd: int
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Step:
    """One member of a chain, and the path that its error names."""

    operation: Operation
    path: str


def publish_steps(
    fd: int,
    source: Place,
    target: Place,
    *,
    tail: Operation | None,
    cut_to: int | None,
    overwrite: bool,
    durability: Durability,
) -> list[Step]:
    """Build the chain: write the tail, cut to size, fsync, rename, fsync the directory.

    `tail` is the last write, or None; `cut_to` the size in bytes when the file is longer than its
    content. "durable" leaves out the directory's fsync, "written" both.
    """
    steps = [Step(tail, source.path)] if tail is not None else []
    if cut_to is not None:
        steps.append(Step(operations.ftruncate(fd, cut_to), source.path))
    if durability != "written":
        steps.append(Step(operations.fsync(fd), source.path))
    rename = operations.rename(
        source.dir_fd, source.name, target.dir_fd, target.name, replace=overwrite
    )
    steps.append(Step(rename, target.path))
    if durability == "published":
        steps.append(Step(operations.fsync(target.dir_fd), f"the directory of {target.path}"))
    return steps


async def run_steps(reactor: Reactor, steps: Sequence[Step]) -> int:
    """Run a chain to its end, or raise the error of the first member that failed.

    No member behind that one is done, but maybe an fsync that was linked to it. The result counts
    short writes that were continued. Not to be cancelled in the middle: shield the call.
    """
    return await finish_steps(reactor, steps, [])


async def finish_steps(reactor: Reactor, steps: Sequence[Step], results: list[int]) -> int:
    """Go on, as `run_steps`, with a chain of which the first members have run, with `results`.

    A short write is no error: the rest of it, and what was linked behind it, is submitted again.
    """
    left = list(steps)
    short_writes = 0
    while True:
        at = _first_broken(left[: len(results)], results)
        if at is None:
            left = left[len(results) :]
        else:
            step, result = left[at], results[at]
            is_write = step.operation.data is not None
            rest = rest_of_write(step.operation, result) if is_write else None
            refused = _is_refused_noreplace(step.operation, result)
            if rest is not None:
                short_writes += 1
                left = [Step(rest, step.path), *left[at + 1 :]]
            elif refused and -errno.ECANCELED not in results[:at]:
                await _link_instead(reactor, step)
                left = left[at + 1 :]
            else:
                raise step_error(step, result)
        if not left:
            return short_writes
        members = [step.operation for step in left]
        results = await reactor.perform_chain(members[: linkable(members)])


def linkable(members: Sequence[Operation]) -> int:
    """Count the members that may go together: what fails is followed by nothing, or by fsyncs."""
    stops = True
    for number, operation in enumerate(members):
        if not stops and operation.opcode is not Opcode.FSYNC:
            return number
        stops = stops and operation.opcode in BREAKS_LINKS
    return len(members)


def _first_broken(steps: list[Step], results: list[int]) -> int | None:
    """Find the member that broke the chain: the others say -ECANCELED, before and behind it."""
    broken = [i for i, step in enumerate(steps) if breaks_chain(step.operation, results[i])]
    culprits = [i for i in broken if results[i] != -errno.ECANCELED]
    return next(iter(culprits or broken), None)


def _is_refused_noreplace(operation: Operation, result: int) -> bool:
    refused = result in {-errno.EINVAL, -errno.ENOSYS}
    return refused and operation.opcode is Opcode.RENAMEAT and operation.flags == RENAME_NOREPLACE


async def _link_instead(reactor: Reactor, step: Step) -> None:
    """Give the file its name where there is no RENAME_NOREPLACE: a link never replaces."""
    op = step.operation
    source, target = os.fsdecode(op.path), os.fsdecode(op.other_path)
    linked = Step(operations.link(op.fd, source, op.other_fd, target), step.path)
    await run_steps(reactor, [linked, Step(operations.unlink(op.fd, source), step.path)])


def step_error(step: Step, result: int) -> Exception:
    """Turn a member's result into its error."""
    if step.operation.data is not None:
        return write_error(step.operation, result, step.path)
    return operation_error(-result, NAMES[step.operation.opcode], step.path)
