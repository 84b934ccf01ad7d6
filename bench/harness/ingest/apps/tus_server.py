"""tuspyserver as its own documentation mounts it, with its own storage in `INGEST_ROOT`.

By default it fsyncs its notes about an upload and not the data. With `INGEST_FSYNC=1` it has the
storage that it brings for those who ask, which fsyncs the data of every PATCH too.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from tuspyserver import create_tus_router
from tuspyserver.storage.local import LocalFileStorage

app = FastAPI()
root = os.environ["INGEST_ROOT"]
storage = LocalFileStorage(root) if os.environ.get("INGEST_FSYNC") == "1" else None
app.include_router(create_tus_router(prefix="files", files_dir=root, storage=storage))
