"""tuspyserver as its own documentation mounts it, with its own storage in `INGEST_ROOT`."""

from __future__ import annotations

import os

from fastapi import FastAPI
from tuspyserver import create_tus_router

app = FastAPI()
app.include_router(create_tus_router(prefix="files", files_dir=os.environ["INGEST_ROOT"]))
