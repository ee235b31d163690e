"""Tags ↔ entities: IOB2 (Tjong Kim Sang and Veenstra, EACL 1999) as both scorers of the field read
it. They differ on an ``I-X`` that continues nothing, as in the gold of Twitter-2015. On other
sequences both are the inverse of `tags_of`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[str, int, int]
"""An entity: its label, its first word, and the word after its last."""
Lexicon: TypeAlias = frozenset[str]
"""Digests of entities, so that a model can know those of its training without their text."""

OUTSIDE = "O"


def is_tag(tag: str) -> bool:
    """Whether `tag` is ``O``, ``B-<label>`` or ``I-<label>``."""
    label = tag[2:]
    named = label.isprintable() and label != "" and " " not in label
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and named)


def normalise_label(label: str) -> str:
    """The one spelling of an entity type: ``OTHER`` is ``MISC``."""
    return "MISC" if label == "OTHER" else label


def normalise(tag: str) -> str:
    """`tag` with its entity type in the one spelling, such as ``I-MISC`` for ``I-OTHER``."""
    return tag[:2] + normalise_label(tag[2:])


def lone_inside(tags: Sequence[str]) -> list[int]:
    """Positions of every ``I-X`` that follows neither ``B-X`` nor ``I-X``."""
    return [
        i
        for i, tag in enumerate(tags)
        if tag.startswith("I-") and (i == 0 or tags[i - 1] not in (tag, "B-" + tag[2:]))
    ]


def strict_spans(tags: Sequence[str]) -> list[Span]:
    """Entities where only ``B-X`` opens one (seqeval, ``scheme=IOB2``, ``mode="strict"``)."""
    spans = []
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            label, end = tag[2:], start + 1
            while end < len(tags) and tags[end] == "I-" + label:
                end += 1
            spans.append((label, start, end))
    return spans


def lenient_spans(tags: Sequence[str]) -> list[Span]:
    """Entities as conlleval and seqeval's default count them: a lone ``I-X`` opens one."""
    return strict_spans(repair(tags))


def repair(tags: Sequence[str]) -> list[str]:
    """`tags` with each lone ``I-X`` as ``B-X``, so that strict and lenient reading agree."""
    fixed = list(tags)
    for i in lone_inside(tags):
        fixed[i] = "B-" + tags[i][2:]
    return fixed


def tags_of(spans: Iterable[Span], length: int) -> list[str]:
    """IOB2 tags of `length` words that hold `spans`, in any order, disjoint and not empty."""
    tags = [OUTSIDE] * length
    for label, start, end in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"span {label} [{start}, {end}) does not fit {length} words")
        if any(tag != OUTSIDE for tag in tags[start:end]):
            raise ValueError(f"span {label} [{start}, {end}) overlaps another")
        tags[start:end] = ["B-" + label] + ["I-" + label] * (end - start - 1)
    return tags


def entity_lexicon(words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> Lexicon:
    """The entities of a training split, read strictly: their types and words, case ignored."""
    return frozenset(
        entity_digest(span, post)
        for post, sequence in zip(words, tags, strict=True)
        for span in strict_spans(sequence)
    )


def entity_digest(span: Span, words: Sequence[str]) -> str:
    """The digest of an entity's label and lower-case words."""
    content = "\n".join([span[0], *(word.lower() for word in words[span[1] : span[2]])])
    return hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=8).hexdigest()
