"""Measure which branches of the commit path the tests take: all of them, or exit code 1.

    make coverage        some minutes

Python's by coverage.py, the C helpers' by gcov, in a copy of the tree that is built for it. What is
measured, and why, stands in paths.py; branches that are excused are listed with their reasons.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# A script finds its own tree first.
from tests.coverage.c_branches import untaken  # noqa: E402
from tests.coverage.excused import excuses  # noqa: E402
from tests.coverage.paths import C_SOURCES, MODULES, TESTS  # noqa: E402
from tests.scratch_tree import build, copy_tree, environment  # noqa: E402

RUN_TIMEOUT_S = 900.0
"""What all tests together may take: three times what they do on two cores."""

TAIL_CHARS = 4000
"""Of pytest's output, where tests fail."""

CONFIG = """
[run]
branch = true
parallel = true
include =
    {include}
[report]
show_missing = true
skip_covered = true
exclude_also =
    # never:
    if TYPE_CHECKING:
    class .*\\(Protocol\\)
"""

FLAGS = {"URINGIO_CFLAGS": "--coverage -O0 -fprofile-update=atomic", "LDFLAGS": "--coverage"}


@click.command(help=(__doc__ or "").strip().splitlines()[0])
def main() -> None:
    """Run the tests and look."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-", dir="/var/tmp") as scratch:
        tree = Path(scratch) / "tree"
        copy_tree(tree)
        built = build(tree, **FLAGS)
        (tree / "coverage.ini").write_text(CONFIG.format(include="\n    ".join(MODULES)))
        failures = _run_tests(tree)
        python_whole = _report(tree)
        missing = untaken(built, {name: tree / name for name in C_SOURCES})
    click.echo("\n".join(missing) or "every branch of the C helpers was taken")
    for excuse in excuses():
        click.echo(f"excused: {excuse}")
    click.echo(f"{time.monotonic() - started:.0f} s")
    if failures:
        click.echo("\n".join([*failures, "tests fail: mend that first"]), err=True)
    if missing or failures or not python_whole:
        raise SystemExit(1)


def _run_tests(tree: Path) -> list[str]:
    """Run each line of TESTS in a process of its own, side by side; what failing ones said."""
    command = [sys.executable, "-P", "-m", "coverage", "run", "--rcfile=coverage.ini"]
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    until = time.monotonic() + RUN_TIMEOUT_S
    running = []
    for number, tests in enumerate(TESTS):
        with (tree / f"tests-{number}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [*command, *pytest, *tests],
                    cwd=tree,
                    env=environment(tree),
                    start_new_session=True,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    failures = []
    for number, process in enumerate(running):
        try:
            code = process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the servers that a test started
            code = process.wait()
        if code:
            failures.append((tree / f"tests-{number}.log").read_text()[-TAIL_CHARS:])
    return failures


def _report(tree: Path) -> bool:
    coverage = [sys.executable, "-P", "-m", "coverage"]
    variables = {**os.environ, "COVERAGE_RCFILE": "coverage.ini"}
    subprocess.run([*coverage, "combine", "--quiet"], cwd=tree, env=variables, check=False)
    report = [*coverage, "report", "--fail-under=100"]
    return subprocess.run(report, cwd=tree, env=variables, check=False).returncode == 0


if __name__ == "__main__":
    main()
