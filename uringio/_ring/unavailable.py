"""Why there is no io_uring here, in words an operator can act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

DISABLED = Path("/proc/sys/kernel/io_uring_disabled")
"""0: for everybody, 1: for CAP_SYS_ADMIN and io_uring_group, 2: for nobody (Linux 6.6)."""

SECCOMP_MEND = (
    "a seccomp filter refuses it, as Docker's and Kubernetes' default profiles do: "
    "run with docker/seccomp.json, or use the thread backend"
)


def why_unavailable(number: int, *, binding: str | None = None) -> str:
    """Say why io_uring answers errno `number` (positive) here, and what mends it."""
    if binding is not None:
        return (
            f"no io_uring: {binding}; install liburing's headers (Debian: liburing-dev) "
            "and build again without URINGIO_NO_EXTENSION"
        )
    name = errno.errorcode.get(number, str(number))
    return f"no io_uring ({name}): {reason(number)}"


def reason(number: int) -> str:
    """Say what errno `number` (positive) of an io_uring call means here, and what mends it."""
    if number == errno.ENOSYS:
        return f"this kernel ({os.uname().release}) is built without it, or {SECCOMP_MEND}"
    if number in {errno.EPERM, errno.EACCES}:
        setting = _disabled_setting()
        if setting and number == errno.EPERM:
            return f"kernel.io_uring_disabled is {setting}: sysctl -w kernel.io_uring_disabled=0"
        return SECCOMP_MEND
    if number == errno.ENOMEM:
        return (
            "RLIMIT_MEMLOCK is too small for the registered memory: raise it (ulimit -l, "
            "LimitMEMLOCK= in systemd), ask for fewer slots, or grant CAP_IPC_LOCK"
        )
    if number in {errno.EMFILE, errno.ENFILE}:
        return "there are no descriptors left: raise the limit (ulimit -n)"
    return os.strerror(number)


def _disabled_setting() -> str:
    try:
        return DISABLED.read_text().strip().removeprefix("0")
    except OSError:
        return ""
