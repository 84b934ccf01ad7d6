"""Declare the extension `uringio._binding._liburing` to cffi (API mode: the compiler checks it)."""

import subprocess
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent


def static_library() -> str | None:
    """Find liburing.a, where the compiler knows one: no liburing is then needed at run time."""
    try:
        asked = subprocess.run(
            ["cc", "-print-file-name=liburing.a"],  # noqa: S607  # the compiler of the PATH
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    path = Path(asked.stdout.strip())
    return str(path) if path.is_absolute() and path.exists() else None


archive = static_library()
ffibuilder = FFI()
ffibuilder.cdef((HERE / "liburing.cdef.txt").read_text())
ffibuilder.set_source(
    "uringio._binding._liburing",
    (HERE / "liburing.csrc.c").read_text(),
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-function"],
    extra_objects=[archive] if archive else [],
    libraries=[] if archive else ["uring"],
)
