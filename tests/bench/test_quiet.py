"""quiet.py: what is left of the last measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness import quiet
from bench.harness.quiet import fresh_directory, set_aside

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_small_files_of_every_measurement_are_kept_beside(tmp_path: Path) -> None:
    for number in range(3):
        set_aside(tmp_path / "run")
        directory = fresh_directory(tmp_path / "run")
        assert not list(directory.iterdir())
        (directory / "file").write_text(f"{number}")
    kept = {path.name: (path / "file").read_text() for path in tmp_path.iterdir()}
    assert kept == {"run-0": "0", "run-1": "1", "run": "2"}


def test_on_a_disk_that_is_nearly_full_they_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "FREE_BYTES_MIN", 1 << 60)
    fresh_directory(tmp_path / "run")
    set_aside(tmp_path / "run")
    fresh_directory(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
