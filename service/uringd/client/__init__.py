"""The client: uploads from asyncio and trio applications alike (anyio).

    async with connect("tcp://127.0.0.1:7433") as client:
        async with client.upload("name", size=None) as upload:
            await upload.write(data)
            receipt = await upload.commit()

One task at a time uses a client and its uploads; connect again for another task. Frames from the
server are read when something is awaited of it: credit, or an answer. Nothing runs in between: the
lanes of an upload are tasks that live no longer than the call that needs them.

Many small files go by `client.put_many(pairs, done)`: one request each, published many at a time.

A connection that breaks in mid-upload is made again, with growing waits, and the upload goes on
where the server has it, if the server offers `resume`. What is not durable yet is kept, up to
64 MiB, or asked again of a source that can be read twice.
"""

from uringd.client.attaching import Transport
from uringd.client.backoff import RETRY_S
from uringd.client.chunk import Piece
from uringd.client.connecting import Client, connect
from uringd.client.link import Link
from uringd.client.receipt import Receipt
from uringd.client.slot import ClientSlot
from uringd.client.small import PutResult
from uringd.client.supply import SeekableSource, StreamSource
from uringd.client.upload import ClientUpload
from uringd.client.watcher import Watcher

__all__ = [
    "RETRY_S",
    "Client",
    "ClientSlot",
    "ClientUpload",
    "Link",
    "Piece",
    "PutResult",
    "Receipt",
    "SeekableSource",
    "StreamSource",
    "Transport",
    "Watcher",
    "connect",
]
