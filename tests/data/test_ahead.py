"""Items made ahead: all of them, in order, errors too, and nothing goes on unheard."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rpbert.data.collate import ahead


def producers() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("count", [1, 3, 100])
def test_items_keep_their_order(count: int) -> None:
    assert list(ahead(range(50), count)) == list(range(50))
    assert list(ahead([], count)) == []
    assert list(ahead([None, 0, None], count)) == [None, 0, None]
    assert producers() == 0


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def faulty() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    items = ahead(faulty())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)
    assert producers() == 0


def test_the_next_item_is_made_before_it_is_asked_for() -> None:
    made = threading.Semaphore(0)

    def counted() -> Iterator[int]:
        for number in range(3):
            made.release()
            yield number

    items = ahead(counted())
    assert next(items) == 0
    assert made.acquire(timeout=30)  # of the item taken
    assert made.acquire(timeout=30)  # of the one behind it
    assert list(items) == [1, 2]


def test_who_stops_listening_stops_the_making() -> None:
    taken = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    items = ahead(endless(), 2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert producers() == 0
    assert len(taken) <= 5
