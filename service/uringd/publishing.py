"""Give a finished spool file its name below ROOT: two chains that no failure can turn round.

`uringio.lowlevel.publish_steps` argues the order: fsync of the file, rename, fsync of the
directory, so submitted that the name cannot appear over bytes that are not durable.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from uringd.root import SPOOL_SUFFIX
from uringd.wire import Durability, check_name
from uringio.lowlevel import Place, publish_steps, run_steps
from uringio.lowlevel import operations as ops

if TYPE_CHECKING:
    from uringd.root import Root
    from uringio.lowlevel import Reactor

LEVELS = {
    Durability.WRITTEN: "written",
    Durability.DURABLE: "durable",
    Durability.PUBLISHED: "published",
}


async def publish(
    reactor: Reactor,
    root: Root,
    fd: int,
    upload_id: str,
    name: str,
    *,
    cut_to: int | None,
    overwrite: bool,
    durability: Durability,
) -> int:
    """Publish a spool file; the result is its mtime in nanoseconds. Raises OperationError.

    `cut_to` is its size in bytes where the file may be longer. Not to be cancelled: shield it.
    """
    components = check_name(name)
    parent_fd = await root.open_parent(reactor, components)
    try:
        steps = publish_steps(
            fd,
            Place(root.spool_fd, upload_id + SPOOL_SUFFIX, name),
            Place(parent_fd, components[-1], name),
            tail=None,
            cut_to=cut_to,
            overwrite=overwrite,
            durability=LEVELS[durability],  # type: ignore[arg-type]
        )
        await run_steps(reactor, steps)
        return os.fstat(fd).st_mtime_ns
    finally:
        await reactor.perform_always(ops.close(parent_fd))
