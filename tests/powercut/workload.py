"""Uploads, small files and files of the library at the same time, all of it noted in a history.

Every name belongs to one task, so that its versions have an order. Names at level "written" are
never used again: a power cut may do anything to them.
"""

from __future__ import annotations

import functools
from random import Random
from typing import TYPE_CHECKING, Protocol

import trio

import uringio
from tests.powercut.history import Partial, Version
from uringd.client import connect
from uringio.lowlevel import small_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.powercut.history import History
    from uringd.client import Client, ClientUpload, PutResult

SERVED = "root"
LIBRARY = "library"

UPLOADS, UPLOADS_OF_EACH = 3, 4
"""Tasks that upload, and what each does in one life of the server."""
UPLOAD_OCTAVES = 18
"""Sizes are 1 byte to 256 KiB, evenly over the logarithm: images are compared byte by byte."""
GROUPS, GROUP_FILES_MAX, SMALL_BYTES_MAX = 3, 24, 9000
LONG_BYTES = small_files.DIRECT_BYTES_MIN
"""More than that has the first file of every other group: it goes past the page cache."""
FILES_OF_THE_LIBRARY = 4
NAMES = 2
"""So few for each task that they are replaced."""
LEVELS, LEVEL_WEIGHTS = ["published", "durable", "written"], [6, 3, 1]
SLOT_BYTES = 64 << 10


class Recorder(Protocol):
    """Where it happens: the position in the log, and the history."""

    history: History
    directory: Path
    url: str

    def position(self) -> int:
        """Return the moment it is."""


async def run(recorder: Recorder, chance: Random, life: int) -> None:
    """Do one life's work. Returns when all is acknowledged, or left for the next life."""
    async with trio.open_nursery() as nursery:
        for number in range(UPLOADS):
            task = Uploads(recorder, seeded(chance), f"l{life}-t{number}")
            nursery.start_soon(task.run)
        nursery.start_soon(put_groups, recorder, seeded(chance), f"l{life}")
        nursery.start_soon(write_files, recorder, seeded(chance))


def seeded(chance: Random) -> Random:
    """Make a source of chance for one task, whatever the others do meanwhile."""
    return Random(chance.random())


class Uploads:
    """One client that uploads one file after the other."""

    def __init__(self, recorder: Recorder, chance: Random, label: str) -> None:
        self._recorder, self._chance, self._label = recorder, chance, label

    async def run(self) -> None:
        """Take up what an earlier life left, then begin uploads of its own."""
        async with connect(self._recorder.url) as client:
            for number in range(UPLOADS_OF_EACH):
                await self._upload(client, number)

    async def _upload(self, client: Client, number: int) -> None:
        chance, recorder = self._chance, self._recorder
        [level] = chance.choices(LEVELS, LEVEL_WEIGHTS)
        name = f"{self._label}/{chance.choice(['a', 'b/c'])}/{chance.randrange(NAMES)}"
        if level == "written":
            name = f"{self._label}/written-{number}"
        content = chance.randbytes(int(2 ** (UPLOAD_OCTAVES * chance.random())))
        size = len(content) if chance.random() < 0.5 else None
        ending = chance.choices(["commit", "keep", "abort"], [8, 1, 1])[0]
        async with client.upload(
            name, size, overwrite=True, durability=level, lanes=chance.choice([1, 1, 2])
        ) as upload:
            partial = recorder.history.uploads[upload.id] = Partial(name, content)
            middle = chance.randrange(len(content) + 1)
            await upload.write(content[:middle])
            if chance.random() < 0.6:
                position = await upload.sync()
                partial.acknowledge(recorder.position(), position)
            if ending == "commit":
                await upload.write(content[middle:])
                await self._commit(upload, partial, level)
            elif ending == "keep":
                upload.keep()
            else:
                partial.ends, partial.gives_up = recorder.position(), True

    async def _commit(self, upload: ClientUpload, partial: Partial, level: str) -> None:
        recorder = self._recorder
        partial.acknowledge(recorder.position(), upload.durable)
        partial.ends = recorder.position()
        partial.gives_up = level == "written"
        version = recorder.history.begin(
            f"{SERVED}/{partial.name}",
            Version(partial.content, level, partial.ends, keeps_name=True, upload_id=upload.id),
        )
        await upload.commit()
        version.acknowledged = recorder.position()


async def resume_all(recorder: Recorder) -> None:
    """Take up every other upload that an earlier life of the server left, and publish it."""
    left = [(key, it) for key, it in recorder.history.uploads.items() if it.ends is None]
    async with connect(recorder.url) as client:
        for upload_id, partial in left[::2]:
            async with client.resume(upload_id) as upload:
                partial.acknowledge(recorder.position(), upload.durable)
                await upload.write(partial.content)
                partial.ends = recorder.position()
                version = recorder.history.begin(
                    f"{SERVED}/{partial.name}",
                    Version(partial.content, "published", partial.ends, upload_id=upload_id),
                )
                await upload.commit()
                version.acknowledged = recorder.position()


async def put_groups(recorder: Recorder, chance: Random, label: str) -> None:
    """Publish groups of small files, most of them in place of one of a group before."""
    async with connect(recorder.url) as client:
        for _ in range(GROUPS):
            [level] = chance.choices(LEVELS[:2], LEVEL_WEIGHTS[:2])
            numbers = chance.sample(range(2 * GROUP_FILES_MAX), chance.randint(1, GROUP_FILES_MAX))
            files: list[tuple[str, bytes]] = []
            versions = {}
            for number in numbers:
                name = f"{label}-small/{number}"
                long_bytes = 0 if files or chance.random() < 0.5 else LONG_BYTES
                content = chance.randbytes(long_bytes + chance.randrange(SMALL_BYTES_MAX))
                version = Version(content, level, recorder.position())
                versions[name] = recorder.history.begin(f"{SERVED}/{name}", version)
                files.append((name, content))
            done = functools.partial(_put, recorder.position, versions)
            await client.put_many(files, done, overwrite=True, durability=level)


def _put(position: Callable[[], int], versions: dict[str, Version], result: PutResult) -> None:
    assert result.error is None, result
    versions[result.name].acknowledged = position()


async def write_files(recorder: Recorder, chance: Random) -> None:
    """Write files with the library: a real ring, in this process."""
    async with uringio.open_ring(4, SLOT_BYTES) as ring:
        for number in range(FILES_OF_THE_LIBRARY):
            [level] = chance.choices(LEVELS, LEVEL_WEIGHTS)
            name = f"{LIBRARY}/{chance.randrange(NAMES)}"
            if level == "written":
                name = f"{LIBRARY}/written-{chance.random()}-{number}"
            content = chance.randbytes(int(2 ** (UPLOAD_OCTAVES * chance.random())))
            version = Version(content, level, recorder.position())
            recorder.history.begin(name, version)
            async with ring.create(recorder.directory / name, overwrite=True) as writer:
                await writer.write(content)
                await writer.commit(durability=level)  # type: ignore[arg-type]  # one of LEVELS
            version.acknowledged = recorder.position()
