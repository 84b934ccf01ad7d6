"""Fuzz the decoders for a bounded time: `make fuzz SECONDS=60 [TARGET=name]`."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
INPUT_TIMEOUT_S = 10
"""One input takes a millisecond; what takes so long hangs."""
MEMORY_MIB_MAX = 1024
"""Python, atheris and a corpus need about 100; what needs so much has no bound."""
START_TIMEOUT_S = 120
"""To import, to instrument, to read the corpus and to end, beside the time for fuzzing."""
COUNT = re.compile(r"number_of_executed_units: (\d+)|^#(\d+)", re.MULTILINE)
"""The count at the end, or, where a finding came before it, the last on the way."""
FOUND = re.compile(r"Test unit written to (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; a failure is the files that show it, or the log where there are none."""

    executions: int
    seconds: int
    failure: tuple[Path, ...]


def fuzz(name: str, seconds: int) -> Outcome:
    """Fuzz one target with its seeds, its corpus and what it found before."""
    folder = FINDINGS / name
    work = folder / "corpus"
    work.mkdir(parents=True, exist_ok=True)
    for seed, data in TARGETS[name].seeds().items():
        (work / seed).write_bytes(data)
    kept = CORPUS / name
    command = [
        *(sys.executable, "-I", str(HERE / "child.py"), name),
        *(f"-max_total_time={seconds}", f"-timeout={INPUT_TIMEOUT_S}"),
        *(f"-rss_limit_mb={MEMORY_MIB_MAX}", "-print_final_stats=1"),
        *(f"-artifact_prefix={folder}/", str(work), *([str(kept)] if kept.is_dir() else [])),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command,
                stdout=output,
                stderr=output,
                timeout=seconds + START_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    said = log.read_text(errors="replace")
    counts = [int(end or on_the_way) for end, on_the_way in COUNT.findall(said)]
    failure = tuple(Path(found) for found in FOUND.findall(said))
    return Outcome(max(counts, default=0), seconds, failure or (() if code == 0 else (log,)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="How long to fuzz each target.",
)
@click.argument("names", metavar="[TARGET]...", nargs=-1, type=click.Choice(list(TARGETS)))
def main(*, seconds: int, names: tuple[str, ...]) -> None:
    """Fuzz every TARGET, one after the other, or only those named. Exit code 1 for a finding."""
    names = names or tuple(TARGETS)
    print(f"{len(names)} targets, {seconds} s each; logs and findings are in {FINDINGS}")
    print(f"{'target':10} {'executions':>12} {'a second':>9}")
    failures = []
    for name in names:
        outcome = fuzz(name, seconds)
        rate = outcome.executions // seconds
        verdict = "FAILED" if outcome.failure else ""
        print(f"{name:10} {outcome.executions:12,} {rate:9,} {verdict}".rstrip(), flush=True)
        failures += [(name, path) for path in outcome.failure]
    for name, path in failures:
        if path.name == "log":
            print(f"\n{name} ended without an input to blame, its last words are in {path}")
            continue
        print(f"\n{name}: {path}\n  {sys.executable} -I tests/fuzz/replay.py {name} {path}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
