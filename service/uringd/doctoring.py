"""`uringd doctor`: what this machine and a directory offer, and what mends what is missing."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import click
import trio

import uringio

if TYPE_CHECKING:
    from pathlib import Path


def report(directory: Path, *, as_json: bool) -> str:
    """Print the findings; the result is the error's sentence, or nothing."""
    facts: dict[str, Any] = dataclasses.asdict(uringio.probe())
    facts["cores"] = len(os.sched_getaffinity(0))  # what `serve --workers auto` takes
    try:
        facts |= trio.run(_try_directory, directory)
    except uringio.UringioError as exc:
        return str(exc)
    except OSError as exc:
        return f"cannot try {directory}: {exc.strerror or exc}"
    if as_json:
        click.echo(json.dumps(facts))
        return ""
    for key, value in facts.items():
        shown = ", ".join(value) if isinstance(value, (list, tuple)) else value
        click.echo(f"{key:<18} {'-' if shown in ('', None) else shown}")
    return ""


async def _try_directory(directory: Path) -> dict[str, Any]:
    """Write a small file there and throw it away: the only sure way to know."""
    async with uringio.open_ring() as ring:
        name = directory / f".uringd-doctor-{secrets.token_hex(4)}"
        async with ring.create(name) as writer:
            await writer.write(b"doctor")
            await writer.sync()
            direct = writer.direct
        features = ring.features
        return {
            "directory": str(directory),
            "direct": direct,
            "backend": features.backend,
            "slots": features.slots,
            "registered_slots": features.registered_slots,
            "huge_pages": features.huge_pages,
            "notes": features.notes,
        }
