"""The words of the line that tells of a fault."""

from __future__ import annotations

import errno
import pickle

import pytest

from rpbert.errors import InputError, did_you_mean, reason_of


def test_an_error_is_one_printable_line_and_survives_another_process() -> None:
    error = InputError("a\n\x1b[31m.txt:3", "x", "y", "do z")
    assert str(error) == "a \\x1b[31m.txt:3: found x; expected y; do z"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "No such file"),
        (OSError("no such model"), "no such model"),
        (ValueError("first\nsecond"), "first"),
        (ValueError("x" * 500), "x" * 160),
        (KeyError(), "KeyError"),
    ],
)
def test_a_reason_is_one_line_without_number_and_path(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_only_a_near_name_is_offered() -> None:
    assert did_you_mean("rpbrt", ["bert", "rpbert"]) == "did you mean rpbert?"
    assert did_you_mean("tree", ["bert", "rpbert"]) == did_you_mean(3, []) == ""
