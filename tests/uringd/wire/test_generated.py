import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[3] / "protos"


def test_the_generated_module_is_fresh() -> None:
    beside = Path(sys.executable).parent
    if not (beside / "protoc").exists():
        pytest.skip("no protoc beside this interpreter: pip install '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-I", PROTOS / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
