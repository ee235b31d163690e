"""Tags ↔ entities, held to seqeval and to a lossless round trip."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

from rpbert.data.labels import (
    entity_digest,
    is_tag,
    lenient_spans,
    lone_inside,
    normalise,
    repair,
    strict_spans,
    tags_of,
)

TAGS = ["O", *(prefix + label for prefix in ("B-", "I-") for label in ("PER", "LOC", "A-B"))]


def test_readings_and_repair_equal_seqeval_on_random_sequences() -> None:
    draw = random.Random(7)
    for _ in range(5_000):
        tags = draw.choices(TAGS, k=draw.randrange(14))
        strict = [(e.tag, e.start, e.end) for e in Tokens(list(tags), IOB2).entities]
        lenient = [(label, start, last + 1) for label, start, last in get_entities(list(tags))]
        assert strict_spans(tags) == strict
        assert lenient_spans(tags) == lenient
        fixed = repair(tags)
        assert [(e.tag, e.start, e.end) for e in Tokens(fixed, IOB2).entities] == lenient
        changed = [i for i, (old, new) in enumerate(zip(tags, fixed, strict=True)) if old != new]
        assert changed == lone_inside(tags)
        assert tags_of(lenient, len(tags)) == tags_of(reversed(lenient), len(tags)) == fixed
        assert strict_spans(fixed) == lenient


def test_spans_that_do_not_fit_or_overlap_are_refused() -> None:
    for start, end in ((0, 0), (1, 4), (-1, 1), (1, 3)):
        with pytest.raises(ValueError, match="span"):
            tags_of([("Y", 0, 2), ("X", start, end)], 3)


def test_what_is_a_tag_and_its_one_spelling() -> None:
    assert all(map(is_tag, ["O", "B-PER", "I-x", "B-A-B"]))
    assert not any(map(is_tag, ["", "o", "B-", "PER", "b-PER", "E-PER", "B-P R", "I-\t", "B_PER"]))
    tags = ["B-OTHER", "I-OTHER", "O", "B-OTHERS"]
    assert list(map(normalise, tags)) == ["B-MISC", "I-MISC", "O", "B-OTHERS"]


def test_the_digest_of_an_entity_is_that_of_saved_models() -> None:
    digest = entity_digest(("PER", 1, 3), ["RT", "Ada", "LOVELACE", "!"])
    assert digest == entity_digest(("PER", 0, 2), ["ada", "Lovelace"]) == "34c6ffaf206e303c"
    assert digest != entity_digest(("LOC", 0, 2), ["ada", "Lovelace"])
