"""block.py: the generated part of a document."""

import pytest

from bench.harness.block import BEGIN, END, BlockError, replace_block


def test_only_what_stands_between_the_markers_changes() -> None:
    document = f"# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n"
    assert replace_block(document, "new\n") == f"# Title\n\n{BEGIN}\nnew\n{END}\n\nmore\n"


def test_replacing_twice_is_replacing_once() -> None:
    once = replace_block(f"a {BEGIN}{END} b", "new")
    assert replace_block(once, "new") == once


@pytest.mark.parametrize(
    "document", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN}{END}{END}"]
)
def test_a_document_without_exactly_one_block_is_left_alone(document: str) -> None:
    with pytest.raises(BlockError):
        replace_block(document, "new")
