"""The other workers, as a registry sees them: questions over the bus."""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING

from uringd.others import Description
from uringd.upload_errors import UploadError
from uringd.wire import ErrorCode, UploadState
from uringd.workers.messages import DESCRIBED_MAX, Abort, Describe, Find, LetGo, Move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uringd.moving import Moved
    from uringd.workers.bus import Bus
    from uringd.workers.messages import Answer


class OtherWorkers:
    """Asks all others, or the one that has said that it holds an upload."""

    patience_s = 1.0
    """As long as making the first or last bytes of an upload durable takes on a slow disk."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, upload_id: str) -> str | None:
        """Return the name of the worker that holds an upload."""
        for name, answer in await self._bus.ask_all(Find(upload_id)):
            if answer.held:
                return name
        return None

    async def let_go(self, upload_id: str, epoch: int) -> int | None:
        """Have an upload closed by its holder; the result is its epoch, None if it has none."""
        answer = _said(await self._bus.ask_all(LetGo(upload_id, epoch)))
        return None if answer is None else answer.epoch

    async def abort(self, upload_id: str, reason: str) -> bool:
        """Have an upload thrown away by its holder; whether it has one."""
        return _said(await self._bus.ask_all(Abort(upload_id, reason))) is not None

    async def describe(self, upload_ids: Sequence[str]) -> dict[str, Description]:
        """Describe those of the uploads that somebody holds."""
        found = {}
        for begin in range(0, len(upload_ids), DESCRIBED_MAX):
            question = Describe(list(upload_ids[begin : begin + DESCRIBED_MAX]))
            for _, answer in await self._bus.ask_all(question):
                for upload_id, state, accepted, written, durable, size in answer.described:
                    found[upload_id] = Description(
                        upload_id,
                        UploadState(state),
                        accepted,
                        written,
                        durable,
                        None if size < 0 else size,
                    )
        return found

    async def move(self, fd: int, worker: str, moved: Moved) -> bool:
        """Have a connection gone on with by another worker; whether it does."""
        facts = dataclasses.asdict(moved)
        facts["features"] = list(moved.features)
        facts["unread"] = base64.b64encode(moved.unread).decode()
        answer = await self._bus.ask(worker, Move(**facts), fd)
        return answer is not None and answer.held


def _said(answers: list[tuple[str, Answer]]) -> Answer | None:
    """Return the holder's answer. Raises UploadError if it refused."""
    for _, answer in answers:
        if answer.code:
            raise UploadError(ErrorCode(answer.code), answer.text)
        if answer.held:
            return answer
    return None
