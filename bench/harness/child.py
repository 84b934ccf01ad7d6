"""The process of one measurement: a job as JSON in, a measurement as JSON out."""

from __future__ import annotations

import pkgutil
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where bench/ is

from bench.harness.contenders import CONTENDERS
from bench.harness.measurement import CannotRunError, Job, Measurement


def main() -> None:
    """Measure, print, leave. A job that cannot be done is one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("was told to end"))  # a daemon ends with us
    job = Job.from_json(sys.argv[1])
    try:
        measurement = pkgutil.resolve_name(CONTENDERS[job.contender].run)(job)
    except (CannotRunError, OSError) as exc:
        sys.exit(str(exc))
    assert isinstance(measurement, Measurement)
    print(measurement.to_json())


if __name__ == "__main__":
    main()
