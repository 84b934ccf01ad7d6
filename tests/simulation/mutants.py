"""Ways to get durability wrong, each applied to the product while a test looks whether it shows."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import uringd.publishing
from uringd.holds import Hold
from uringd.intake import Intake
from uringd.uploads import Upload
from uringd.wire import Verdict, WrittenRanges
from uringio._trio import write_behind
from uringio.exceptions import OperationError
from uringio.lowlevel import Opcode, operations, publish_steps, run_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Mutant = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def no_fsync_before_the_rename() -> contextlib.AbstractContextManager[None]:
    def steps(fd: int, *places: Any, **options: Any) -> Any:
        whole = publish_steps(fd, *places, **options)
        return [s for s in whole if (s.operation.opcode, s.operation.fd) != (Opcode.FSYNC, fd)]

    return _replaced(uringd.publishing, "publish_steps", steps)


def no_fsync_of_the_directory() -> contextlib.AbstractContextManager[None]:
    def steps(fd: int, *places: Any, **options: Any) -> Any:
        whole = publish_steps(fd, *places, **options)
        return [s for s in whole if s.operation.opcode is not Opcode.FSYNC or s.operation.fd == fd]

    return _replaced(uringd.publishing, "publish_steps", steps)


def no_fsync_of_the_spool_directory() -> contextlib.AbstractContextManager[None]:
    fsync = Upload._fsync

    async def only_files(upload: Upload, fd: int, path: str) -> None:
        if fd != upload._root.spool_fd:
            await fsync(upload, fd, path)

    return _replaced(Upload, "_fsync", only_files)


def short_writes_ignored() -> contextlib.AbstractContextManager[None]:
    completed = write_behind._Chunk.completed

    def whole(chunk: Any, result: int) -> None:
        completed(chunk, chunk.padded - chunk.written if result > 0 else result)

    return _replaced(write_behind._Chunk, "completed", whole)


@contextlib.contextmanager
def failed_fsyncs_retried() -> Iterator[None]:
    async def again(upload: Upload, fd: int, path: str) -> None:
        fsync = operations.fsync(fd, data_only=True)
        if await upload._ring.reactor.perform(fsync) < 0:
            await upload._ring.reactor.perform(fsync)

    async def run_again(reactor: Any, steps: Any) -> int:
        try:
            return await run_steps(reactor, steps)
        except OperationError as exc:
            if exc.operation != "fsync":
                raise
            at = next(i for i, step in enumerate(steps) if step.path == exc.path)
            return await run_steps(reactor, steps[at:])

    with (
        _replaced(Upload, "_fsync", again),
        _replaced(uringd.publishing, "run_steps", run_again),
    ):
        yield


class _Same:
    """Equal to everything."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def checksums_not_compared() -> contextlib.AbstractContextManager[None]:
    receive = Intake._receive

    async def agreeing(intake: Intake, *chunk: Any) -> Any:
        await receive(intake, *chunk)
        return _Same()

    return _replaced(Intake, "_receive", agreeing)


def conflicts_not_detected() -> contextlib.AbstractContextManager[None]:
    judge = WrittenRanges.judge

    def lenient(ranges: WrittenRanges, offset: int, length: int, crc32c: int) -> Verdict:
        verdict = judge(ranges, offset, length, crc32c)
        return Verdict.REPEATED if verdict is Verdict.CONFLICT else verdict

    return _replaced(WrittenRanges, "judge", lenient)


def fences_not_looked_at() -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def blind() -> Iterator[None]:
        with (
            _replaced(Hold, "is_fenced", property(lambda _: False)),
            _replaced(Hold, "fenced", lambda _: None),
        ):
            yield

    return blind()


MUTANTS: list[Mutant] = [
    no_fsync_before_the_rename,
    no_fsync_of_the_directory,
    no_fsync_of_the_spool_directory,
    short_writes_ignored,
    failed_fsyncs_retried,
    checksums_not_compared,
    conflicts_not_detected,
    fences_not_looked_at,
]
