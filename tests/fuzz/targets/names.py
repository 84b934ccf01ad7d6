"""Names of files. PROTOCOL.md, "Names": its list, said a second time and in another way."""

from __future__ import annotations

import re

from tests.fuzz.targets.target import Target
from uringd.wire import BadNameError, ErrorCode, check_name

COMPONENT = re.compile(r"(?!\.\.?\Z)[^/\x00-\x1f\x7f-\x9f]+\Z")
PRIVATE = re.compile(r"\.uringd(/|\Z)", re.IGNORECASE | re.ASCII)


def allowed(name: str) -> bool:
    """Say whether the server may take a name."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    return (
        size <= 1024
        and all(COMPONENT.match(part) and len(part.encode()) <= 255 for part in parts)
        and not PRIVATE.match(name)
    )


def run(data: bytes) -> None:
    """A name is taken exactly when the list allows it, and is its components joined."""
    name = data.decode(errors="surrogateescape")
    try:
        components = check_name(name)
    except BadNameError as exc:
        assert exc.code is ErrorCode.BAD_NAME
        assert str(exc).encode()
        assert not allowed(name), "a name was refused that the list allows"
        return
    assert allowed(name), "a name was taken that the list does not allow"
    assert "/".join(components) == name


def seeds() -> dict[str, bytes]:
    names = ["a", "a/b.txt", "", "/a", "a/", "a//b", ".", "..", "a/..", "a\x7f", "\x85", "\ud800x"]
    names += [
        ".uringd",
        ".URINGD/a",
        "a/.uringd",
        ".ur\u0131ngd",
        "n" * 256,
        "é" * 127 + "/b",
        "x/" * 9,
    ]
    names += [("d" * 254 + "/") * 4 + "file"]
    return {f"name-{at}": name.encode(errors="surrogatepass") for at, name in enumerate(names)}


TARGET = Target("names", run, seeds, bytes_max=1100)
