"""Tags ↔ entities, held to seqeval and to a lossless round trip."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Tokens

from rpbert.config.run import Scheme
from rpbert.data.labels import (
    AS_IOB2,
    Span,
    TagReading,
    entity_digest,
    is_tag,
    lenient_spans,
    lone_inside,
    repair,
    scheme_of,
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
    assert all(map(is_tag, ["O", "B-PER", "I-x", "B-A-B", "B-P R"]))
    assert not any(map(is_tag, ["", "o", "B-", "PER", "b-PER", "E-PER", "B-P ", "I-\t", "B_PER"]))
    tags = ("B-OTHER", "I-OTHER", "O", "B-OTHERS")
    assert AS_IOB2.tags(tags) == ("B-MISC", "I-MISC", "O", "B-OTHERS")
    assert TagReading(merges_other=False).tags(tags) == tags


def test_the_digest_of_an_entity_is_that_of_saved_models() -> None:
    digest = entity_digest(("PER", 1, 3), ["RT", "Ada", "LOVELACE", "!"])
    assert digest == entity_digest(("PER", 0, 2), ["ada", "Lovelace"]) == "34c6ffaf206e303c"
    assert digest != entity_digest(("LOC", 0, 2), ["ada", "Lovelace"])


SCHEMES = {"iob1": (IOB1, "OIB"), "bioes": (IOBES, "OBIES"), "bilou": (BILOU, "OBILU")}


def in_scheme(scheme: str, spans: list[Span], length: int) -> list[str]:
    """The tags of disjoint entities, letter by letter."""
    tags, ended = ["O"] * length, (0, "")
    for label, start, end in sorted(spans, key=lambda span: span[1:]):
        last, single = {"bioes": ("E", "S"), "bilou": ("L", "U")}.get(scheme, ("I", "B"))
        for place in range(start, end):
            tags[place] = ("B-" if place == start else "I-") + label
        if scheme == "iob1" and ended != (start, label):
            tags[start] = "I-" + label
        if scheme != "iob1":
            tags[end - 1] = (single if end - start == 1 else last) + "-" + label
        ended = end, label
    return tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_are_recognised_and_read_as_seqeval_does(scheme: Scheme) -> None:
    draw, written = random.Random(scheme), []
    for _ in range(300):
        place, spans = 0, []
        while (place := place + draw.randrange(3)) < 12:
            end = place + draw.randint(1, 3)
            spans.append((draw.choice(["PER", "LOC"]), place, end))
            place = end
        written.append(in_scheme(scheme, spans, 15))
        strict = Tokens(list(written[-1]), SCHEMES[scheme][0]).entities
        assert [(e.tag, e.start, e.end) for e in strict] == spans
        read = TagReading(scheme).tags(written[-1])
        assert strict_spans(read) == lenient_spans(read) == spans
        mixed = draw.choices([f"{letter}-{x}" for letter in "BIES" for x in "XY"], k=8)
        lenient = [(label, start, last + 1) for label, start, last in get_entities(list(mixed))]
        assert lenient_spans(TagReading("bioes").tags(mixed)) == lenient
    assert scheme_of(written) == scheme
    assert scheme_of(map(TagReading(scheme).tags, written)) == "iob2"
    assert scheme_of([["O"], [], ["O", "I-PER"]]) == "iob2"  # an oddity alone is no scheme
    bmes = [[tag.replace("I-", "M-") for tag in tags] for tags in written]
    if scheme == "bioes":
        assert scheme_of(bmes) == scheme
        assert [*map(TagReading(scheme).tags, bmes)] == [*map(TagReading(scheme).tags, written)]
