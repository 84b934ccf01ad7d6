"""A server and its client, as a user that is not root: modes that change while an upload runs, and
names that are somebody else's files.

Started by the tests, as root, with a directory of that user's and its number as arguments. It
becomes that user when all is imported: an installation may be root's alone.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from functools import partial
from pathlib import Path

import anyio
import trio

from uringd.client import ClientUpload, PutResult, connect
from uringd.config import Settings
from uringd.errors import RefusedError
from uringd.listeners import listen
from uringd.server import open_server
from uringd.urls import UnixUrl
from uringd.wire import ErrorCode

MIB = 1 << 20
DATA = os.urandom(MIB + 1)
SMALL = b"small"
OPEN, STICKY = "open/x", "sticky/x"
"""Files of root's that nobody else may read or write: in a directory where whoever may write to it
replaces any file, and in one where only its owner does, as in /tmp."""


async def main(home: Path) -> None:
    """Serve, and try each place whose mode can change."""
    root, url = home / "root", UnixUrl(str(home / "socket"))
    settings = Settings(root=root, listen=(url,), slots=4, slot_bytes=64 << 10)
    async with open_server(settings) as server, trio.open_nursery() as nursery:
        listener = await listen(url)
        serve = partial(server.serve_connection, listener.transport)
        nursery.start_soon(trio.serve_listeners, serve, [listener.socket])
        for mode in (0o500, 0o600, 0o000):  # no writing, no searching, nothing
            for place in (root, root / "dir", root / "dir" / "below"):
                await change_while_it_runs(str(url), root, place, mode)
        await take_the_names_of_somebody_else(str(url), root)
        nursery.cancel_scope.cancel()
    assert os.listdir(root / ".uringd" / "spool") == []


async def change_while_it_runs(url: str, root: Path, place: Path, mode: int) -> None:
    """Upload, change the mode, be refused, change it back, and commit the same upload."""
    published = root / "dir" / "below" / "x"
    published.parent.mkdir(parents=True, exist_ok=True)
    name = str(published.relative_to(root))
    async with connect(url) as client, client.upload(name, overwrite=True) as upload:
        await upload.write(DATA)
        await upload.sync()
        place.chmod(mode)
        code = await commit(upload)
        place.chmod(0o700)
        # Only the last directory is written to; those above are passed through.
        harmless = mode == 0o500 and place != published.parent
        assert code == (None if harmless else ErrorCode.BAD_NAME), code
        await upload.commit()
    assert published.read_bytes() == DATA


async def take_the_names_of_somebody_else(url: str, root: Path) -> None:
    """Files of others keep their names where they have to, and are never read or written to."""
    async with connect(url) as client:
        before = {name: os.stat(root / name) for name in (OPEN, STICKY)}

        async def put(
            *, overwrite: bool = False, keep_equal: bool = False
        ) -> list[ErrorCode | None]:
            results: list[PutResult] = []
            files = [(STICKY, SMALL), (OPEN, SMALL)]
            await client.put_many(files, results.append, overwrite=overwrite, keep_equal=keep_equal)
            return [getattr(result.error, "code", None) for result in results]

        assert await put() == [ErrorCode.EXISTS] * 2
        assert await put(keep_equal=True) == [ErrorCode.EXISTS] * 2, "they may not be read"
        assert await put(overwrite=True) == [ErrorCode.BAD_NAME, None]
        assert (root / OPEN).read_bytes() == SMALL
        async with client.upload(STICKY, overwrite=True) as upload:
            await upload.write(DATA)
            await upload.sync()
            for _ in range(2):  # it has not been thrown away
                assert await commit(upload) == ErrorCode.BAD_NAME
        assert identity(os.stat(root / STICKY)) == identity(before[STICKY])
        assert os.stat(root / OPEN).st_ino != before[OPEN].st_ino


def identity(found: os.stat_result) -> tuple[int, int]:
    """What changes when a file is another one, or was written to."""
    return found.st_ino, found.st_mtime_ns


async def commit(upload: ClientUpload) -> ErrorCode | None:
    """Commit; the result is the code of the refusal, None if it is none."""
    try:
        await upload.commit()
    except RefusedError as exc:
        return exc.code
    return None


def import_what_is_imported_late() -> None:
    """Import the parts of anyio, which come when they are first used."""
    for module in pkgutil.walk_packages(anyio.__path__, "anyio."):
        if module.name != "anyio.pytest_plugin":
            importlib.import_module(module.name)


def own_some_files(root: Path, user: int) -> None:
    """Make what is root's, below a ROOT that is the user's."""
    root.mkdir(mode=0o700)
    for name in (OPEN, STICKY):
        path = root / name
        path.parent.mkdir()
        path.write_bytes(SMALL)
        path.chmod(0o600)
    os.chown(root, user, user)
    os.chown((root / OPEN).parent, user, user)
    (root / STICKY).parent.chmod(0o1777)


if __name__ == "__main__":
    import_what_is_imported_late()
    user = int(sys.argv[2])
    own_some_files(Path(sys.argv[1]) / "root", user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    trio.run(main, Path(sys.argv[1]))
