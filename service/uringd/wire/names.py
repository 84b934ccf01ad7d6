"""Names that clients may give to files. PROTOCOL.md, "Names".

Names come from clients, paths never do. What passes here is safe to hand component by component to
openat2 below the root; it is not yet known to exist, or to be free of symlinks.
"""

from uringd.wire.codes import COMPONENT_BYTES_MAX, NAME_BYTES_MAX
from uringd.wire.exceptions import BadNameError

# The server's own directory below the root. Compared without case, and without what is not ASCII,
# because a directory of the file system may be set to do the same: it then leaves out characters
# that nobody sees. Deeper down the name has no meaning and is allowed.
PRIVATE_NAME = ".uringd"


def check_name(name: str) -> tuple[str, ...]:
    """Return a name's components. Raises BadNameError, which costs the request, not the session.

    Lengths are in bytes of UTF-8. Unicode is otherwise taken as it is: no normalization, so what
    was published under a name is found under exactly that name.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        # A lone surrogate: what os.fsdecode makes of a byte that is not UTF-8.
        raise BadNameError("the name is not UTF-8") from None
    if not encoded:
        raise BadNameError("the name is empty")
    if len(encoded) > NAME_BYTES_MAX:
        raise BadNameError(f"the name has {len(encoded):,} bytes, at most {NAME_BYTES_MAX:,} go")
    if encoded.startswith(b"/"):
        raise BadNameError("the name begins with a slash: it is relative to the server's root")
    components = tuple(name.split("/"))
    for component in components:
        _check_component(component)
    if components[0].encode("ascii", "ignore").decode().casefold() == PRIVATE_NAME:
        raise BadNameError(f"{PRIVATE_NAME} is the server's own directory")
    return components


def _check_component(component: str) -> None:
    if not component:
        raise BadNameError("the name has an empty component: two slashes, or one at the end")
    if component in (".", ".."):
        raise BadNameError(f"the name has a component {component!r}")
    if len(component.encode()) > COMPONENT_BYTES_MAX:
        raise BadNameError(f"a component of the name has more than {COMPONENT_BYTES_MAX} bytes")
    if any(_is_control(character) for character in component):
        raise BadNameError(f"the name has a control character: {component!r}")


def _is_control(character: str) -> bool:
    """Say whether it is one of C0, DEL or C1: terminals obey them."""
    return character < " " or "\x7f" <= character <= "\x9f"
