"""Several calls at once, that end before the one that waits for them does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from uringd.errors import ClientError
from uringd.groups import main_reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


async def together(calls: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Await all calls; the first ClientError cancels the others, and is raised as it is."""
    errors: list[ClientError] = []

    async def guarded(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except ClientError as exc:
            errors.append(exc)
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(guarded, call)
    except BaseExceptionGroup as exc:
        raise main_reason(exc) from exc
    if errors:
        raise errors[0]
