"""An upload that is let go of by its holder while another process takes it up."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from uringd.accounts import Accounts
from uringd.others import Nobody
from uringd.quota import SpoolQuota
from uringd.records import ReceiptRecord
from uringd.resting import Resting
from uringd.uploads import Upload

if TYPE_CHECKING:
    from tests.uringd.conftest import Daemon, OpenPeer, Until
    from uringd.catalog import Catalog
    from uringd.records import UploadRecord
    from uringio.lowlevel import OpenFile

Content = Callable[[int], bytes]

SIZE = 100_000


class Between:
    """A catalog, and what its uploads' holder does after the first look into it."""

    def __init__(self, catalog: Catalog, happens: Callable[[], Awaitable[object]]) -> None:
        self._catalog = catalog
        self._happens: Callable[[], Awaitable[object]] | None = happens

    async def find(self, upload_id: str) -> UploadRecord | None:
        found = await self._catalog.find(upload_id)
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)


def another(daemon: Daemon, happens: Callable[[], Awaitable[object]]) -> Resting:
    """What another process of the same server has of the uploads at rest."""
    server, accounts = daemon.server, Accounts()
    catalog = cast("Catalog", Between(server.catalog, happens))
    quota = SpoolQuota(None, accounts)

    def make(record: UploadRecord, file: OpenFile, reached: int) -> Upload:
        return Upload(server.ring, server.root, catalog, quota, file, record, reached=reached)

    return Resting(server.ring, server.root, catalog, quota, accounts, Nobody(), make)


async def test_what_its_holder_recorded_last_is_what_counts(
    daemon: Daemon, open_peer: OpenPeer, content: Content, until: Until
) -> None:
    """Acknowledged as durable, and from an epoch that is over."""
    upload_id, data = secrets.token_hex(16), content(SIZE)
    async with open_peer(daemon.unix, "resume") as first:
        await first.create("file", upload_id=upload_id)

        async def let_go() -> None:
            async with open_peer(daemon.unix, "resume") as peer:
                reply = await peer.resume(upload_id, 1)
                await peer.fill(reply.upload, data)
            await until(lambda: not daemon.uploads)

        upload, taken = await another(daemon, let_go).open(upload_id, 0, join=False)
    assert isinstance(upload, Upload)
    assert not taken
    assert (upload.epoch, upload.durable) == (2, SIZE)
    assert await upload.suspend()


async def test_what_its_holder_published_is_not_opened(
    daemon: Daemon, open_peer: OpenPeer, content: Content
) -> None:
    upload_id, data = secrets.token_hex(16), content(SIZE)
    async with open_peer(daemon.unix, "resume") as peer:
        handle = await peer.create("file", upload_id=upload_id)
        await peer.fill(handle, data)
        commit = partial(peer.commit, handle, SIZE)
        receipt, _ = await another(daemon, commit).open(upload_id, 1, join=True)
    assert isinstance(receipt, ReceiptRecord)
    assert receipt.size == SIZE
    assert (daemon.root / "file").read_bytes() == data
