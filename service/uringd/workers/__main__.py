"""A worker's process: `python -m uringd.workers`, started by the supervisor and by nobody else."""

from __future__ import annotations

import os
import sys

from uringd.collecting import leave_full_collections_to_the_server
from uringd.logs import configure
from uringd.serving import guarded, raise_descriptor_limit
from uringd.workers.orders import Orders
from uringd.workers.worker import work

EXIT_FAILED = 5


def main() -> int:
    """Read the orders and serve; a failure is said on standard output, as the one line of it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 1 << 16)
        if not piece:
            return EXIT_FAILED  # the supervisor is gone before it had begun
        line += piece
    orders = Orders.decode(line)
    configure(orders.log_format, worker=orders.worker)  # type: ignore[arg-type]  # it was checked
    raise_descriptor_limit(orders.settings)
    leave_full_collections_to_the_server()
    error = guarded(work, orders)
    if error:
        os.write(sys.stdout.fileno(), error.encode() + b"\n")
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
