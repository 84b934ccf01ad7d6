"""Run a command under a seccomp profile: `confined.py PROFILE COMMAND [ARGUMENT]...`.

Does what a container runtime does with a profile in the OCI format: hands its rules to libseccomp,
loads the filter into this process, and becomes the command, which inherits it. Names that this
libseccomp does not know are left out, as runtimes do.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

LIBRARY = "libseccomp.so.2"

ALLOW = 0x7FFF0000
ERRNO = 0x00050000  # or-ed with the number
COMPARISONS = {"LT": 2, "EQ": 4, "GT": 6, "MASKED_EQ": 7}
UNKNOWN_CALL = -1


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: for MASKED_EQ `a` is the mask and `b` the result."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def libseccomp() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    return library


def action(rule: dict[str, Any]) -> int:
    return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | int(rule["errnoRet"])


def comparisons(rule: dict[str, Any]) -> ctypes.Array[Comparison]:
    arguments = [
        Comparison(
            each["index"],
            COMPARISONS[each["op"].removeprefix("SCMP_CMP_")],
            each["value"],
            each["valueTwo"],
        )
        for each in rule.get("args", [])
    ]
    return (Comparison * len(arguments))(*arguments)


def confine(profile: dict[str, Any]) -> None:
    """Load the profile into this process, for good."""
    library = libseccomp()
    rules = library.seccomp_init(ERRNO | profile["defaultErrnoRet"])
    native, *others = (name.removeprefix("SCMP_ARCH_") for name in profile["architectures"])
    assert native.lower() == os.uname().machine, "a profile for another machine"
    for name in others:
        token = library.seccomp_arch_resolve_name(name.lower().encode())
        assert library.seccomp_arch_add(rules, token) == 0, name
    for rule in profile["syscalls"]:
        arguments = comparisons(rule)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == UNKNOWN_CALL:
                continue
            rc = library.seccomp_rule_add_array(
                rules, action(rule), number, len(arguments), arguments
            )
            assert rc == 0, (name, os.strerror(-rc))
    rc = library.seccomp_load(rules)
    assert rc == 0, os.strerror(-rc)


if __name__ == "__main__":
    confine(json.loads(Path(sys.argv[1]).read_text()))
    os.execv(sys.argv[2], sys.argv[2:])
