"""What is said of faults."""

from __future__ import annotations

import errno

import pytest

from rpbert.errors import counted, did_you_mean, reason_of


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(number, "post") for number in (0, 1, 2000)] == [
        "0 posts",
        "1 post",
        "2,000 posts",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
            "No such file or directory",
        ),
        (OSError("no such model"), "no such model"),
        (ValueError("first\nsecond"), "first"),
        (ValueError("x" * 500), "x" * 160),
        (KeyError(), "KeyError"),
    ],
)
def test_a_reason_is_one_line_without_number_and_path(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_only_what_is_near_is_offered() -> None:
    assert did_you_mean("rpbrt", ["bert", "rpbert"]) == "did you mean rpbert?"
    assert did_you_mean("tree", ["bert", "rpbert"]) == did_you_mean(3, []) == ""
