"""block.py: what is the report's, and what is not."""

import pytest

from bench.harness.block import BlockError, read_block, replace_block

DOCUMENT = """before
<!-- figures: one -->
old
<!-- /figures: one -->
between
<!-- figures: two -->
<!-- /figures: two -->
after
"""


def test_only_what_stands_between_the_markers_of_that_name_changes() -> None:
    text = replace_block(DOCUMENT, "one", "new\n\n")
    assert text == DOCUMENT.replace("old", "new")
    assert replace_block(text, "one", "new") == text
    assert (read_block(text, "one"), read_block(text, "two")) == ("new", "")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<!-- figures: one -->",
        "<!-- /figures: one -->\n<!-- figures: one -->",
        DOCUMENT.replace("two", "one"),
    ],
)
def test_a_document_without_exactly_one_such_block_is_left_alone(document: str) -> None:
    with pytest.raises(BlockError):
        replace_block(document, "one", "new")
