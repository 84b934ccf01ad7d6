"""Make each line of the durability path wrong in turn, and see that a test notices.

    make mutants                     all of them, a few minutes
    make mutants NAME=fsync          those whose names have the word

A mutant that survives is a promise that no test holds: exit code 1.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# A script finds its own tree first.
from tests.mutation.mutants import MUTANTS  # noqa: E402
from tests.scratch_tree import build, copy_tree, environment  # noqa: E402

if TYPE_CHECKING:
    from tests.mutation.mutant import Mutant

RUN_TIMEOUT_S = 300.0
"""What the tests of one mutant may take: one that hangs them is noticed, too."""

JOBS_DEFAULT = 2
"""Mutants at a time: tests wait for disks and clocks more than for a core."""

TIMED_OUT = -1
VERDICTS = {0: "SURVIVED", 1: "killed", TIMED_OUT: "killed"}
"""By pytest's exit codes: 1 for tests that ran and failed; others mean that they did not run."""

TAIL_CHARS = 4000
"""Of pytest's output, where tests fail without a mutant."""


@click.command(help=(__doc__ or "").strip().splitlines()[0])
@click.option("--name", default="", help="Only mutants whose names contain this.")
@click.option("--jobs", default=JOBS_DEFAULT, show_default=True, type=click.IntRange(1, 64))
def main(name: str, jobs: int) -> None:
    """Run the gate."""
    chosen = [mutant for mutant in MUTANTS if name in mutant.name]
    if not chosen:
        raise click.UsageError(f"no mutant's name contains {name!r}")
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-", dir="/var/tmp") as scratch:
        pristine = Path(scratch) / "pristine"
        copy_tree(pristine)
        _check_pristine(pristine, chosen)
        with ThreadPoolExecutor(jobs) as pool:
            for mutant, verdict, seconds in pool.map(lambda m: _try(pristine, m), chosen):
                click.echo(f"{verdict:9}{seconds:6.1f} s  {mutant.name}")
                if verdict != "killed":
                    survivors.append(mutant.name)
    click.echo(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed")
    if survivors:
        raise SystemExit(1)


def _check_pristine(pristine: Path, chosen: list[Mutant]) -> None:
    """A mutant is killed by tests that pass without it, and by no others."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    code, text = _pytest(pristine, tests)
    if code:
        click.echo(text[-TAIL_CHARS:], err=True)
        raise click.ClickException("these tests fail without a mutant: mend that first")


def _try(pristine: Path, mutant: Mutant) -> tuple[Mutant, str, float]:
    started = time.monotonic()
    tree = Path(tempfile.mkdtemp(dir=pristine.parent))
    shutil.copytree(pristine, tree, dirs_exist_ok=True)
    path = tree / mutant.path
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.path}"
    path.write_text(text.replace(mutant.old, mutant.new))
    if path.suffix == ".c":
        build(tree)
    code, _ = _pytest(tree, list(mutant.tests))
    verdict = VERDICTS.get(code, f"EXIT {code}")
    shutil.rmtree(tree, ignore_errors=True)
    return mutant, verdict, time.monotonic() - started


def _pytest(tree: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests of a tree against that tree's own modules: no installed ones come first."""
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    with subprocess.Popen(
        command, cwd=tree, env=environment(tree), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            text, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the servers that a test started
            return TIMED_OUT, ""
        return process.returncode, text


if __name__ == "__main__":
    main()
