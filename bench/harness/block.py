"""The generated block of a document: what stands between two markers is the report's."""

from __future__ import annotations

BEGIN = "<!-- figures -->"
END = "<!-- /figures -->"


class BlockError(Exception):
    """A document has no block, or half of one, or several."""


def replace_block(document: str, content: str) -> str:
    """Put `content` between the markers; everything else stays as it is."""
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise BlockError(f"the document needs {BEGIN} and {END}, each once, on lines of their own")
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise BlockError(f"{END} stands before {BEGIN}")
    return f"{before}{BEGIN}\n{content.strip()}\n{END}{after}"
