"""The one error a user can fix, and the words of its line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeAlias


class InputError(ValueError):
    """Something the user gave cannot be used; the message is a single line.

    Args:
        where: the file (with line), key or option at fault, for example ``train.txt:17``.
        found: what was found there.
        expected: what would have been accepted.
        hint: what to type or change, where that is not plain from `expected`.
    """

    def __init__(self, where: object, found: str, expected: str, hint: str = "") -> None:
        self.where, self.found, self.expected, self.hint = where, found, expected, hint
        line = f"{where}: found {found}; expected {expected}"
        if hint:
            line += f"; {hint}"
        super().__init__(printable(" ".join(line.split())))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, ...]]:
        """Its arguments, for another process."""
        return type(self), (str(self.where), self.found, self.expected, self.hint)


def printable(line: str) -> str:
    """A line with control characters escaped: a file name may hold some that steer a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """The name of `known` that is spelt most like `given`, as a question; else nothing."""
    near = difflib.get_close_matches(str(given)[:80], list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def reason_of(error: BaseException) -> str:
    """The reason that the system or a library gives: one line without error number and path."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).splitlines()[0][:160]


def counted(number: int, noun: str) -> str:
    """``1 post``, ``2,000 posts``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


Faults: TypeAlias = "Callable[[InputError], object]"
"""Called with each faulty row of a file; if it returns, reading continues after the row."""


def refuse(fault: InputError) -> NoReturn:
    """Stop at the first fault."""
    raise fault
