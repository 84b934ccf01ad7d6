"""The generated blocks of a document: what stands between a pair of markers is the report's."""

from __future__ import annotations


class BlockError(Exception):
    """A document has no such block, or half of one, or several."""


def read_block(document: str, name: str) -> str:
    """Take what stands between the markers of that name."""
    return _parts(document, name)[1].strip()


def replace_block(document: str, name: str, content: str) -> str:
    """Put `content` between the markers of that name; everything else stays as it is."""
    before, _, after = _parts(document, name)
    return f"{before}\n{content.strip()}\n{after}"


def _parts(document: str, name: str) -> tuple[str, str, str]:
    """Split a document before and behind a block's content: the markers are of the outer parts."""
    begin, end = f"<!-- figures: {name} -->", f"<!-- /figures: {name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise BlockError(f"the document needs {begin} and {end}, each once, on lines of their own")
    before, _, rest = document.partition(begin)
    content, found, after = rest.partition(end)
    if not found:
        raise BlockError(f"{end} stands before {begin}")
    return before + begin, content, end + after
