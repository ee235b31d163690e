"""Figures over any number of posts in constant memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Generic, TypeVar

Item = TypeVar("Item")
Kind = TypeVar("Kind")


@dataclass(slots=True)
class Mean:
    """The mean of values as they come, and how sure it is (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        """One value more."""
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self._squares += off * (value - self.mean)

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None for fewer than two values."""
        if self.count < 2:
            return None
        return sqrt(self._squares / (self.count - 1) / self.count)


@dataclass(slots=True)
class Correlation:
    """Pearson's correlation of pairs as they come."""

    _x: Mean = field(default_factory=Mean)
    _y: Mean = field(default_factory=Mean)
    _products: float = 0.0

    def add(self, x: float, y: float) -> None:
        """One pair more."""
        off = x - self._x.mean
        self._x.add(x)
        self._y.add(y)
        self._products += off * (y - self._y.mean)

    @property
    def value(self) -> float | None:
        """In [-1, 1]; None where one side does not vary."""
        spread = sqrt(self._x._squares * self._y._squares)
        return self._products / spread if spread > 0 else None


class Sample(Generic[Item]):
    """A uniform sample of all that was offered, in the order of offering (Vitter 1985, R).

    Args:
        size: most that is kept.
        seed: decides which.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.offered = 0
        self._draw = random.Random(seed)
        self._kept: list[tuple[int, Item]] = []

    def offer(self, make: Callable[[], Item]) -> None:
        """One item more; it is made only if it is kept."""
        number = self.offered
        self.offered += 1
        if number < self.size:
            self._kept.append((number, make()))
        elif (place := self._draw.randrange(self.offered)) < self.size:
            self._kept[place] = (number, make())

    def __len__(self) -> int:
        return len(self._kept)

    def items(self, most: int | None = None) -> list[Item]:
        """What is kept, or a uniform sample of it, in the order in which it came."""
        kept = self._kept
        if most is not None and most < len(kept):
            kept = self._draw.sample(kept, most)
        return [item for _, item in sorted(kept, key=lambda entry: entry[0])]


def shares(offered: Mapping[Kind, int], room: int) -> dict[Kind, int]:
    """How many of each kind are taken: an equal share each, and what one leaves goes to others."""
    taken = dict.fromkeys(offered, 0)
    while room and (open_ := [kind for kind in offered if taken[kind] < offered[kind]]):
        for kind in open_[:room]:
            taken[kind] += 1
            room -= 1
    return taken
