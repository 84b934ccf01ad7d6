"""Fuzz one target: child.py TARGET [libFuzzer's options] [corpora]. Started by run.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import atheris  # of the extra `fuzz`

# Only the code under test leads the fuzzer: what the targets themselves do is no discovery.
with atheris.instrument_imports(include=["uringd"]):
    import uringd.urls
    import uringd.wire  # noqa: F401 - for its instrumentation

from tests.fuzz.targets import TARGETS


def main(name: str, arguments: list[str]) -> None:
    """Run libFuzzer, which ends the process."""
    target = TARGETS[name]
    options = {}
    if target.mutate is not None:
        mutate = target.mutate
        options["custom_mutator"] = lambda data, size_max, seed: mutate(
            data, size_max, seed, atheris.Mutate
        )
    limits = [f"-max_len={target.bytes_max}"]
    atheris.Setup([sys.argv[0], *limits, *arguments], target.run, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
