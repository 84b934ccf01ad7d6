"""run.py as make runs it: bounded, counted, and loud about a finding."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHILD_TIMEOUT_S = 150

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris (the fuzz extra) is missing"
)


def script(name: str, *arguments: str | Path, root: Path = ROOT) -> tuple[int, str]:
    path = root / "tests" / "fuzz" / name
    done = subprocess.run(
        [sys.executable, "-I", str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the targets, so that what a run leaves lies elsewhere."""
    shutil.copytree(
        HERE,
        tmp_path / "tests" / "fuzz",
        ignore=shutil.ignore_patterns("findings", "__pycache__"),
    )
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path


@needs_atheris
def test_a_short_run_counts_its_executions(tree: Path) -> None:
    code, said = script("run.py", "--seconds", "1", "names", root=tree)
    assert code == 0, said
    found = re.search(r"^names +([\d,]+)", said, re.MULTILINE)
    assert found, said
    assert int(found[1].replace(",", "")) > 0


@needs_atheris
def test_a_crash_is_kept_and_said_how_to_see_again(tree: Path) -> None:
    """The target raises for a byte that stands in no seed: the fuzzer has to find it."""
    path = tree / "tests" / "fuzz" / "targets" / "names.py"
    text = path.read_text()
    line = '    name = data.decode(errors="surrogateescape")\n'
    assert line in text
    path.write_text(text.replace(line, line + '    assert data[:1] != b"z", "planted"\n'))
    code, said = script("run.py", "--seconds", "20", "names", root=tree)
    assert code == 1, said
    kept = next((tree / "tests" / "fuzz" / "findings" / "names").glob("crash-*"))
    assert kept.read_bytes()[:1] == b"z"
    assert f"replay.py names {kept}" in said
    code, said = script("replay.py", "names", kept, root=tree)
    assert (code, "planted" in said) == (1, True)
    assert script("replay.py", "names", kept)[0] == 0, "without the fault nothing is wrong"


def test_a_target_that_there_is_not_is_a_usage_error() -> None:
    code, said = script("run.py", "--seconds", "1", "nothing")
    assert (code, "frames" in said) == (2, True)
    assert script("replay.py", "nothing", "file")[0] == 1


def test_the_corpus_is_chosen_anew_without_atheris(tree: Path) -> None:
    corpus = tree / "tests" / "fuzz" / "corpus" / "names"
    (corpus / "same-as-another").write_bytes(b"a" * 200)
    code, said = script("keep.py", "names", root=tree)
    assert code == 0, said
    assert not (corpus / "same-as-another").exists()
    assert 1 <= len(list(corpus.iterdir())) < 30
