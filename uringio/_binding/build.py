"""Declare the extension `uringio._binding._liburing` to cffi (API mode: the compiler checks it)."""

import os
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


PARTS = ("liburing", "small_files")

FLAGS = os.environ.get("URINGIO_CFLAGS", "-O2").split()
"""`make coverage` builds with others."""


def declarations() -> str:
    """Return what is declared of the ring and of small files."""
    return "\n".join((HERE / f"{part}.cdef.txt").read_text() for part in PARTS)


def definitions() -> str:
    """Return what is defined of them, with the files' names for the compiler's messages."""
    paths = [f"{part}.csrc.c" for part in PARTS]
    return "\n".join(f'#line 1 "uringio/_binding/{p}"\n{(HERE / p).read_text()}' for p in paths)


archive = static_library()
ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "uringio._binding._liburing",
    definitions(),
    extra_compile_args=[*FLAGS, "-Wall", "-Wextra", "-Wno-unused-function"],
    extra_objects=[archive] if archive else [],
    libraries=[] if archive else ["uring"],
)
