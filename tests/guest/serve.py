"""`uringd serve` in a guest that is to be woken many times: imported, and waiting for its orders.

    python3 -P serve.py FIFO

Starting Python and importing the server is most of what a start takes under emulation. So this is
done before the guest's state is saved, and a line of JSON from the FIFO says what is to be served,
and with which differences from a server as it is:

- `entropy`: what the kernel's source of randomness takes in. It was saved with all the rest, and
  would else give the same ids in each life of the guest.
- `buffered`: direct I/O is not offered, as by a file system that has none. Then what was not synced
  is in the guest's page cache, and gone with the power.
- `forgetful`: an fsync of the ring does nothing, and says that all is well.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -P leaves it out: it is where tests/ is

from tests.powercut.forgetful import forget
from uringd import cli, serving
from uringio._ring import execute
from uringio._trio import opening
from uringio.lowlevel import Opcode

RNDRESEEDCRNG = 0x5207
"""ioctl of random(4): give out nothing more that does not rest on what was taken in."""


def never(_fd: int, _flags: int) -> int:
    """Offer no direct I/O."""
    return 0


def main() -> None:
    assert serving, "it is imported late by the command, and here before"
    assert "_switch_to_direct" in vars(opening), "this is how a file is found to take direct I/O"
    print("waiting", flush=True)  # noqa: T201  # who saves the guest reads it
    orders = json.loads(Path(sys.argv[1]).read_text())
    with Path("/dev/urandom").open("wb", buffering=0) as pool:
        pool.write(bytes.fromhex(orders["entropy"]))
        fcntl.ioctl(pool, RNDRESEEDCRNG)
    sys.argv[1:] = ["serve", *orders["arguments"]]
    if orders["buffered"]:
        vars(opening)["_switch_to_direct"] = never
    if orders["forgetful"]:
        execute.CALLS[Opcode.FSYNC] = forget
        sys.argv += ["--backend", "threads"]
    cli.main()


if __name__ == "__main__":
    main()
