"""The process of one measurement: an order as JSON in, a measurement as JSON out."""

from __future__ import annotations

import pkgutil
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where bench/ is

from bench.harness.contenders import CONTENDERS
from bench.harness.measurement import CannotRunError, Measurement, Order


def main() -> None:
    """Measure, print, leave. What cannot be done is one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("was told to end"))  # a daemon ends with us
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our parent, who then ends us
    order = Order.from_json(sys.argv[1])
    try:
        measurement = pkgutil.resolve_name(CONTENDERS[order.contender].run)(order)
    except (CannotRunError, OSError, ExceptionGroup) as exc:
        reason = first_of(exc)
        if not isinstance(reason, CannotRunError | OSError):
            raise
        sys.exit(str(reason))
    assert isinstance(measurement, Measurement)
    print(measurement.to_json())


def first_of(exc: Exception) -> Exception:
    """Take the first error out of a group: tasks that write side by side fail side by side."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc


if __name__ == "__main__":
    main()
