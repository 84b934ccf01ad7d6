"""What a disk has of the names."""

from __future__ import annotations

import random

from uringio.testing.names import Names

A, B, ELSEWHERE = (1, "a"), (1, "b"), (2, "c")


def survivors(names: Names) -> list[dict[tuple[int, str], int]]:
    found = []
    for seed in range(100):
        copy = names.copy()
        copy.settle(random.Random(seed))
        if copy.durable not in found:
            found.append(copy.durable)
    return found


def test_a_name_survives_from_its_directorys_fsync_on() -> None:
    names = Names()
    names.change({A: 7})
    assert sorted(map(len, survivors(names))) == [0, 1]
    names.sync(2)
    assert len(survivors(names)) == 2, "that was another directory's"
    names.sync(1)
    assert survivors(names) == [{A: 7}]


def test_names_survive_each_for_itself() -> None:
    names = Names()
    names.change({A: 7})
    names.change({B: 8})
    found = survivors(names)
    assert len(found) == 4
    assert {B: 8} in found


def test_the_changes_of_a_name_survive_in_their_order() -> None:
    names = Names()
    for number in (7, 8, 9):
        names.change({A: number})
    found = survivors(names)
    assert len(found) == 4
    assert all(names in found for names in ({}, {A: 7}, {A: 8}, {A: 9}))


def test_a_rename_is_one_change_and_needs_what_was_before() -> None:
    names = Names()
    names.change({A: 7})
    names.change({A: None, ELSEWHERE: 7})
    found = survivors(names)
    assert len(found) == 3
    assert all(names in found for names in ({}, {A: 7}, {ELSEWHERE: 7}))
    names.sync(2)
    assert survivors(names) == [{ELSEWHERE: 7}]


def test_a_removed_name_may_come_back_until_its_directory_is_synced() -> None:
    names = Names()
    names.change({A: 7})
    names.sync(1)
    names.change({A: None})
    assert len(survivors(names)) == 2
    names.sync_all()
    assert survivors(names) == [{}]
    assert names.current == {}
