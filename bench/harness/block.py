"""The generated blocks of a document: what stands between a pair of markers is the report's."""

from __future__ import annotations


class BlockError(Exception):
    """A document has no such block, or half of one, or several."""


def replace_block(document: str, name: str, content: str) -> str:
    """Put `content` between the markers of that name; everything else stays as it is."""
    begin, end = f"<!-- figures: {name} -->", f"<!-- /figures: {name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise BlockError(f"the document needs {begin} and {end}, each once, on lines of their own")
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise BlockError(f"{end} stands before {begin}")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"
