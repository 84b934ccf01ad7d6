"""A lock for each of many names, over all workers: who gives a name to a file.

fcntl(2) locks single bytes of a file, also beyond its end. A name is the byte that its hash says,
in the memory that the workers share; two names of one byte wait for each other, which is all. Such
a lock belongs to the process, so within it the names are kept apart as ever, by the same byte.
It ends with the process: a killed worker holds no name.
"""

from __future__ import annotations

import fcntl
import hashlib
from typing import TYPE_CHECKING

import trio

from uringd.keyed_lock import KeyedLock

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

FIRST_BYTE = 1 << 32
"""Beyond the accounts and their own lock."""

BYTES = 1 << 61
"""So many locks, within what file positions can say."""

POLL_S = 0.002
"""Between two looks at a name that another worker is giving a file: less than its fsync takes."""


class SharedNames(KeyedLock):
    """As KeyedLock, over all processes that lock bytes of the same file."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    async def take(self, names: AbstractSet[str]) -> None:
        """Wait until nobody holds any of `names`, and hold them all, until `free`.

        Everybody takes bytes from the lowest on, and lets go of what is held already without
        waiting for anything but the catalog: so nobody waits for who waits for them.
        """
        wanted = _bytes_of(names)
        await super().take(_keys_of(wanted))
        taken = []
        try:
            for byte in wanted:
                # The kernel tells nobody but a thread that blocks.
                while not self._try(byte):  # noqa: ASYNC110
                    await trio.sleep(POLL_S)
                taken.append(byte)
        except BaseException:
            self._let_go(taken)
            super().free(_keys_of(wanted))
            raise

    def free(self, names: AbstractSet[str]) -> None:
        """Let go of what was taken."""
        held = _bytes_of(names)
        self._let_go(held)
        super().free(_keys_of(held))

    def _let_go(self, taken: list[int]) -> None:
        for byte in taken:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:  # EACCES or EAGAIN: another worker has it
            return False
        return True


def _bytes_of(names: AbstractSet[str]) -> list[int]:
    """Return the bytes of some names, from the lowest on."""
    return sorted({_byte_of(name) for name in names})


def _byte_of(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return FIRST_BYTE + int.from_bytes(digest, "little") % BYTES


def _keys_of(taken: list[int]) -> set[str]:
    return {str(byte) for byte in taken}
