"""Going on behind faulty rows: each is left out, counted, and the first ones are told."""

from __future__ import annotations

from rpbert.errors import InputError

_TOLD = 3


class LeftOut:
    """Takes the faults of a source (`rpbert.errors.Faults`) and lets the reading go on.

    Attributes:
        count: how many rows, or posts of a text file, were left out or mended.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def __call__(self, fault: InputError) -> None:
        """Take a fault."""
        self.count += 1
        if len(self._first) < _TOLD:
            self._first.append(str(fault))

    def __str__(self) -> str:
        """All in one line: ``2 faulty rows left out or mended: train.txt:17: found …``."""
        rows = "row" if self.count == 1 else "rows"
        more = ["…"] if self.count > len(self._first) else []
        return f"{self.count:,} faulty {rows} left out or mended: {' | '.join(self._first + more)}"
