"""Errors of entities, and what changes between two models."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.analysis.summary import EntityError, Outcome, entity_errors, outcome
from rpbert.data.labels import Span, strict_spans

GOLD: list[Span] = [("PER", 0, 2), ("LOC", 4, 5), ("ORG", 8, 10)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (GOLD, []),
        (
            [("ORG", 0, 2), ("LOC", 4, 5), ("ORG", 8, 10)],
            [EntityError("type", ("PER", 0, 2), ("ORG", 0, 2))],
        ),
        (
            [("PER", 1, 2), ("LOC", 4, 5), ("ORG", 8, 12)],
            [
                EntityError("boundary", ("PER", 0, 2), ("PER", 1, 2)),
                EntityError("boundary", ("ORG", 8, 10), ("ORG", 8, 12)),
            ],
        ),
        (
            [("MISC", 6, 7), ("LOC", 4, 5), ("PER", 0, 2)],
            [
                EntityError("spurious", None, ("MISC", 6, 7)),
                EntityError("missed", ("ORG", 8, 10), None),
            ],
        ),
        (
            # One gold entity cut in two: it meets one of them, the other is spurious.
            [("PER", 0, 1), ("PER", 1, 2), ("LOC", 4, 5), ("ORG", 8, 10)],
            [
                EntityError("boundary", ("PER", 0, 2), ("PER", 0, 1)),
                EntityError("spurious", None, ("PER", 1, 2)),
            ],
        ),
    ],
)
def test_every_difference_has_its_name(found: list[Span], expected: list[EntityError]) -> None:
    assert entity_errors(GOLD, found) == expected


tags = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=8)


@given(tags, tags)
def test_each_entity_is_right_or_in_one_error(gold_tags: list[str], found_tags: list[str]) -> None:
    gold, found = strict_spans(gold_tags), strict_spans(found_tags)
    errors = entity_errors(gold, found)
    assert sorted(e.gold for e in errors if e.gold) == sorted(set(gold) - set(found))
    assert sorted(e.found for e in errors if e.found) == sorted(set(found) - set(gold))
    for error in errors:
        one, other = error.gold, error.found
        both = one is not None and other is not None
        assert both == (error.kind in ("type", "boundary"))
        if one and other:
            assert (one[1:] == other[1:]) == (error.kind == "type")
            assert set(range(*one[1:])) & set(range(*other[1:]))


PERSON: list[Span] = [("PER", 0, 1)]
PLACE: list[Span] = [("LOC", 0, 1)]


@pytest.mark.parametrize(
    ("gold", "answers", "expected"),
    [
        (PERSON, [PERSON], "right"),
        (PERSON, [PLACE], "wrong"),
        (None, [PLACE], "unlabelled"),
        (PERSON, [PERSON, PERSON], "both right"),
        (PERSON, [PERSON, PLACE], "mended"),
        (PERSON, [[], PERSON], "broken"),
        (PERSON, [PLACE, PLACE], "both wrong"),
        (PERSON, [PLACE, []], "differs"),
        (None, [PLACE, PLACE], "unlabelled"),
        (None, [PLACE, PERSON], "differs"),
        ([], [[]], "right"),
    ],
)
def test_outcomes(gold: list[Span] | None, answers: list[list[Span]], expected: Outcome) -> None:
    assert outcome(gold, *answers) == expected


def test_an_outcome_says_who_is_right() -> None:
    """All pairs of answers out of three, against a table made of who is right."""
    for one, other in product([PERSON, PLACE, []], repeat=2):
        found = outcome(PERSON, one, other)
        right = (one == PERSON, other == PERSON)
        expected = {(True, True): "both right", (True, False): "mended", (False, True): "broken"}
        assert found == expected.get(right, "both wrong" if one == other else "differs")
