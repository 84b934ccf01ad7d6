"""What a worker answers when another one asks."""

from __future__ import annotations

import base64
import dataclasses
import os
import socket
from typing import TYPE_CHECKING

import trio

from uringd.describing import describe
from uringd.moving import Moved
from uringd.upload_errors import UploadError
from uringd.workers.messages import Abort, Answer, Describe, Find, LetGo, MessageError, Move

if TYPE_CHECKING:
    from uringd.server import Server

NOT_HELD = Answer()


class Answering:
    """Answers for one worker's server. Owns the descriptors that come with questions."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __call__(self, question: object, fd: int | None) -> Answer:
        """Do what is asked, and say what came of it. Raises MessageError for no question."""
        if isinstance(question, Move) and fd is not None:
            return self._move(question, fd)
        if fd is not None:
            os.close(fd)
        try:
            return await self._answer(question)
        except UploadError as exc:
            return Answer(code=int(exc.code), text=str(exc))

    async def _answer(self, question: object) -> Answer:
        registry = self._server.registry
        match question:
            case Find(upload_id):
                return Answer(held=upload_id in registry.open)
            case LetGo(upload_id, epoch):
                new_epoch = await registry.give_up(upload_id, epoch)
                return NOT_HELD if new_epoch is None else Answer(held=True, epoch=new_epoch)
            case Abort(upload_id, reason):
                return Answer(held=await registry.abort_here(upload_id, reason))
            case Describe(upload_ids):
                return self._describe(upload_ids)
            case _:
                raise MessageError(f"{question!r} is no question")

    def _describe(self, upload_ids: list[str]) -> Answer:
        opened = self._server.registry.open
        found = [describe(opened[each]) for each in upload_ids if each in opened]
        return Answer(
            described=[
                [
                    each.upload_id,
                    int(each.state),
                    each.accepted,
                    each.written,
                    each.durable,
                    -1 if each.size is None else each.size,
                ]
                for each in found
            ]
        )

    def _move(self, question: Move, fd: int) -> Answer:
        """Go on with a connection, if what it is for is still here."""
        connection = socket.socket(fileno=fd)
        try:
            facts = {each.name: getattr(question, each.name) for each in dataclasses.fields(Moved)}
            facts["features"] = tuple(question.features)
            facts["unread"] = base64.b64decode(question.unread)
            if question.upload_id not in self._server.registry.open:
                connection.close()
                return NOT_HELD
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        except BaseException:
            connection.close()
            raise
        self._server.take_over(stream, Moved(**facts))
        return Answer(held=True)
