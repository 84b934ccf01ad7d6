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


def texts(suffix: str) -> str:
    """Return what is declared, or defined, of the ring and of small files."""
    return "\n".join(
        (HERE / f"{part}.{suffix}").read_text() for part in ("liburing", "small_files")
    )


archive = static_library()
ffibuilder = FFI()
ffibuilder.cdef(texts("cdef.txt"))
ffibuilder.set_source(
    "uringio._binding._liburing",
    texts("csrc.c"),
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-function"],
    extra_objects=[archive] if archive else [],
    libraries=[] if archive else ["uring"],
)
