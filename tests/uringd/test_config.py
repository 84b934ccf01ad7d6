"""Settings: what may be said, where, and what is said of mistakes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from uringd.config import BOUNDS, Settings
from uringd.config_file import ConfigError, load


def test_every_number_has_bounds_and_its_default_is_within() -> None:
    numbers = {
        field.name
        for field in fields(Settings)
        if isinstance(field.default, int | float) or field.name in {"slots", "spool_bytes_max"}
    }
    assert numbers == set(BOUNDS)
    Settings(root=Path("root"), listen=())


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_what_is_beyond_its_bounds_is_refused(name: str) -> None:
    least, most = BOUNDS[name]
    for value in (least - 1, most + 1):
        with pytest.raises(ValueError, match=f"{name} must be "):
            Settings(Path("root"), (), **{name: value})


def test_a_slot_is_a_multiple_of_the_alignment() -> None:
    with pytest.raises(ValueError, match="multiple of 4096"):
        Settings(Path("root"), (), slot_bytes=5000)


def test_a_file_sets_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "uringd.toml"
    path.write_text("uploads_max = 100_000  # many\nidle_timeout_s = 2.5\ncheckpoint_s = 3\n")
    found: dict[str, Any] = load(path)
    settings = Settings(Path("root"), (), **found)
    assert (settings.uploads_max, settings.idle_timeout_s) == (100_000, 2.5)
    assert settings.checkpoint_s == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("upload_max = 1", "did you mean uploads_max?"),
        ("zzz = 1", "there are checkpoint_bytes, "),
        ("uploads_max = 1.5", "uploads_max must be a whole number"),
        ("uploads_max = true", "uploads_max must be a whole number, not True"),
        ('idle_timeout_s = "1"', "idle_timeout_s must be a number"),
        ("root = 1", "there is no setting root"),
        ("uploads_max", "is no TOML"),
        ("\udcff", "is no TOML"),
        ("#" * (2 << 20), "too long"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "uringd.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*No such file"):
        load(tmp_path / "none")
