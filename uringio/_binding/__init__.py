"""Where C ends: the compiled liburing binding, or None and the reason why there is none."""

__all__ = ["ffi", "lib", "missing"]

try:
    from uringio._binding._liburing import ffi, lib

    missing = None
except ImportError as exc:
    ffi = lib = None
    missing = f"the compiled binding is not there ({exc})"
