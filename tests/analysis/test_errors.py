"""Errors of entities, and what changes between two models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.analysis.posts import Outcome, entity_errors, outcome
from rpbert.data.labels import Span, strict_spans

P, L, O = ("PER", 0, 2), ("LOC", 4, 5), ("ORG", 8, 10)  # noqa: E741


tags = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=8)


@given(tags, tags)
def test_each_entity_is_right_or_in_one_error(gold_tags: list[str], found_tags: list[str]) -> None:
    gold, found = strict_spans(gold_tags), strict_spans(found_tags)
    errors = entity_errors(gold, found)
    assert sorted(e.gold for e in errors if e.gold) == sorted(set(gold) - set(found))
    assert sorted(e.found for e in errors if e.found) == sorted(set(found) - set(gold))
    for error in errors:
        one, other = error.gold, error.found
        assert (one is not None and other is not None) == (error.kind in ("type", "boundary"))
        if one and other:
            assert (one[1:] == other[1:]) == (error.kind == "type")
            assert set(range(*one[1:])) & set(range(*other[1:]))


@pytest.mark.parametrize(
    ("gold", "answers", "expected"),
    [
        ([P], [[P]], "right"),
        ([P], [[L]], "wrong"),
        ([], [[]], "right"),
        (None, [[L]], "unlabelled"),
        (None, [[L], [L]], "unlabelled"),
        (None, [[L], [P]], "differs"),
        ([P], [[P], [P]], "both right"),
        *[([P], [[P], wrong], "mended") for wrong in ([L], [])],
        *[([P], [wrong, [P]], "broken") for wrong in ([L], [])],
        *[([P], [wrong, wrong], "both wrong") for wrong in ([L], [])],
        *[([P], both, "differs") for both in ([[L], []], [[], [L]])],
    ],
)
def test_an_outcome_says_who_is_right(
    gold: list[Span] | None, answers: list[list[Span]], expected: Outcome
) -> None:
    assert outcome(gold, *answers) == expected
