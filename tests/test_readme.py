"""What the README shows is true: its examples run, its files exist, its commands are there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DOCUMENTS = [
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "RELIABILITY.md"),
    *("bench/README.md", "docker/README.md"),
]


def test_the_first_example_runs_as_it_stands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "durability='published'" in done.stdout
    assert (tmp_path / "big.bin").stat().st_size == 100 << 20


@pytest.mark.parametrize(
    ("promised", "passes"),
    [("commit()", True), ('commit(durability="written")', False)],
)
def test_the_test_of_ones_own_application_runs_and_finds_a_lost_file(
    tmp_path: Path, promised: str, *, passes: bool
) -> None:
    """Beside no source tree, as where the package is only installed."""
    [example] = [example for example in EXAMPLES if "SimulatedDisk" in example]
    (tmp_path / "test_app.py").write_text(example.replace("commit()", promised))
    flag = "-I" if sys.flags.isolated else "-P"
    done = subprocess.run(
        [
            sys.executable,
            flag,
            "-m",
            "pytest",
            "-q",
            "-o",
            "trio_mode=true",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (not passes), done.stdout + done.stderr
    assert ("1 passed" if passes else "FileNotFoundError") in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_python(example: str) -> None:
    compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_make_targets_it_names_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
