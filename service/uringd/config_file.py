"""Settings from a TOML file: `uringd serve --config FILE`. A key that is none is refused.

    uploads_max = 100_000
    spool_bytes_max = 2_000_000_000_000
    upload_expiry_s = 86_400

Keys are the fields of `Settings` that have a bound; what the command line says as well wins.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING

from uringd.config import BOUNDS

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_BYTES_MAX = 1 << 20
"""A longer file is no configuration."""


class ConfigError(Exception):
    """A configuration cannot be used; the text names the key and what it may be."""


def load(path: Path) -> dict[str, int | float]:
    """Return the settings of a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES_MAX + 1).decode()
        if len(text) > CONFIG_BYTES_MAX:
            raise ConfigError(f"{path} is too long to be a configuration")
        found = tomllib.loads(text)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is no TOML: {exc}") from exc
    for key, value in found.items():
        _check(path, key, value)
    return found


def _check(path: Path, key: str, value: object) -> None:
    if key not in BOUNDS:
        near = difflib.get_close_matches(key, BOUNDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(BOUNDS))}"
        raise ConfigError(f"{path}: there is no setting {key}: {hint}")
    whole = not key.endswith("_s")
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if not fits or isinstance(value, bool):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{path}: {key} must be {kind}, not {value!r}")
