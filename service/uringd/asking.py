"""`uringd ls`, `stat` and `abort`: questions to a server, and how their answers look."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import click

from uringd.client import connect
from uringd.wire import UPLOAD_ID_CHARS, UploadState

if TYPE_CHECKING:
    from uringd.urls import Url
    from uringd.v1 import uringd_pb2 as pb


async def ls(url: Url, prefix: str, token: str, *, uploads: bool, as_json: bool) -> None:
    """Print files or uploads, one on a line."""
    async with connect(url, token=token) as client:
        after = ""
        more = True
        while more:
            if uploads:
                reply = await client.list_uploads(prefix, after)
                rows = [upload_facts(upload) for upload in reply.uploads]
            else:
                reply = await client.list_files(prefix, after)
                rows = [file_facts(file) for file in reply.files]
            for row in rows:
                click.echo(json.dumps(row) if as_json else _line(row))
            after = str(rows[-1]["upload_id" if uploads else "name"]) if rows else ""
            more = reply.more and bool(rows)


async def stat(url: Url, subject: str, token: str, *, as_json: bool) -> None:
    """Print what is known of a file or an upload."""
    async with connect(url, token=token) as client:
        if is_upload_id(subject):
            facts = upload_facts((await client.stat(upload_id=subject)).upload)
        else:
            facts = file_facts((await client.stat(name=subject)).file)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key:<12} {value}")


async def abort(url: Url, upload_id: str, token: str, *, as_json: bool) -> None:
    """Throw an upload away."""
    async with connect(url, token=token) as client:
        await client.abort(upload_id)
    click.echo(json.dumps({"aborted": upload_id}) if as_json else f"aborted {upload_id}")


def is_upload_id(text: str) -> bool:
    """Whether this has the form of an upload's id."""
    return len(text) == UPLOAD_ID_CHARS and set(text) <= set("0123456789abcdef")


def file_facts(file: pb.FileInfo) -> dict[str, Any]:
    """Turn a published file into what is printed of it."""
    changed = dt.datetime.fromtimestamp(file.modified_ns / 1e9, tz=dt.UTC)
    return {
        "name": file.name,
        "size": file.size,
        "modified": changed.isoformat(timespec="seconds"),
    }


def upload_facts(upload: pb.UploadInfo) -> dict[str, Any]:
    """Turn an unfinished upload into what is printed of it."""
    return {
        "upload_id": upload.upload_id,
        "name": upload.name,
        "state": UploadState(upload.state).name.lower(),
        "accepted": upload.accepted,
        "written": upload.written,
        "durable": upload.durable,
        "size": upload.size if upload.HasField("size") else None,
    }


def _line(row: dict[str, Any]) -> str:
    if "upload_id" in row:
        return f"{row['upload_id']}  {row['state']:<10}  {row['accepted']:>15}  {row['name']}"
    return f"{row['size']:>15}  {row['modified']}  {row['name']}"
