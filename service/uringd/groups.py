"""What task groups wrap, taken out again: a person is told one reason, not a tree of them."""

from __future__ import annotations


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Take the exceptions out of nested groups."""
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


def main_reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose the exception that ended the others: Ctrl-C if it is among them, or the first."""
    found = leaves(group)
    return next((exc for exc in found if isinstance(exc, KeyboardInterrupt)), found[0])
