"""prepare.py: the file that is written into."""

from pathlib import Path

from bench.harness.cell import Cell
from bench.harness.content import make_block, stamp
from bench.harness.prepare import lay_out


def test_a_new_file_is_left_to_the_contender(tmp_path: Path) -> None:
    lay_out(tmp_path / "file", Cell("fresh", 1 << 20, 4096, 1))
    assert not (tmp_path / "file").exists()


def test_no_block_of_the_file_is_what_a_contender_writes(tmp_path: Path) -> None:
    cell = Cell("overwrite", 3 << 19, 4096, 1)  # no whole number of the pieces it is made of
    lay_out(tmp_path / "file", cell)
    data = (tmp_path / "file").read_bytes()
    assert len(data) == cell.size_bytes
    block = make_block(cell.block_bytes)
    for number in range(cell.blocks):
        stamp(block, number)
        assert data[number * 4096 :][:4096] != block
        assert data[number * 4096 + 8 :][:4088] == block[8:], "written, not a hole"
