"""An upload endpoint as Starlette's users write it: the body streamed into a file in a thread.

`INGEST_ROOT` is where the files go; with `INGEST_FSYNC=1` each is fsynced before the answer, so
that its bytes and size survive a power cut (not its name: nobody fsyncs the directory).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

ROOT = Path(os.environ["INGEST_ROOT"])
FSYNC = os.environ.get("INGEST_FSYNC") == "1"


async def put(request: Any) -> Response:
    """Write the body as it comes."""
    path = ROOT / request.path_params["name"]
    file = await run_in_threadpool(path.open, "wb")
    try:
        async for piece in request.stream():
            if piece:
                await run_in_threadpool(file.write, piece)
        if FSYNC:
            await run_in_threadpool(fsync, file)
    finally:
        await run_in_threadpool(file.close)
    return Response(status_code=201)


def fsync(file: Any) -> None:
    """Hand over what Python buffers, then wait for the disk."""
    file.flush()
    os.fsync(file.fileno())


app = Starlette(routes=[Route("/{name}", put, methods=["PUT"])])
