"""A copy of this tree to run tests in: changed, or built otherwise, beside the one here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]

ERROR_CHARS = 4000
"""Of the compiler's output, where it fails."""


def copy_tree(target: Path) -> None:
    """Copy what git tracks or will, and the extension that was built in place."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.split("\0") if name]
    names += [str(path.relative_to(ROOT)) for path in ROOT.glob("uringio/_binding/*.so")]
    for name in names:
        source, copy = ROOT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def build(tree: Path, **variables: str) -> Path:
    """Compile the extension of a tree; the result is the folder with what that left.

    Elsewhere, or setuptools would read the tree's pyproject.toml.
    """
    built = Path(tempfile.mkdtemp(dir=tree.parent))
    code = f"""
import runpy
runpy.run_path({str(tree / "uringio/_binding/build.py")!r})["ffibuilder"].compile({str(built)!r})
"""
    command = [sys.executable, "-P", "-W", "ignore", "-c", code]
    done = subprocess.run(
        command,
        cwd=built,
        env={**os.environ, **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-ERROR_CHARS:])
    for path in built.rglob("*.so"):
        shutil.copy2(path, tree / "uringio/_binding")
    return built


def environment(tree: Path) -> dict[str, str]:
    """Make Python import the tree's own modules: no installed ones come first."""
    return {
        **os.environ,
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'service'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
