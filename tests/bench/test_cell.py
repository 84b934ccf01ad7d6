"""cell.py: what is written, and in which order."""

from bench.harness.cell import Cell

MIB = 1 << 20


def test_a_new_file_is_written_from_its_start_to_its_end() -> None:
    assert list(Cell("fresh", 4 * MIB, MIB, 16).numbers()) == [0, 1, 2, 3]


def test_a_random_order_has_each_block_once_and_is_the_same_for_everybody() -> None:
    cell = Cell("random", MIB, 4096, 128)
    order = list(cell.numbers())
    assert sorted(order) == list(range(256))
    assert order != sorted(order)
    assert order == list(cell.numbers())


def test_a_name_tells_block_and_depth() -> None:
    assert Cell("random", MIB, 4096, 128).name == "4 KiB QD128"
