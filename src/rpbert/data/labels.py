"""Tags ↔ entities: IOB2 (Tjong Kim Sang and Veenstra, EACL 1999) as both scorers of the field read
it. They differ on an ``I-X`` that continues nothing, as in the gold of Twitter-2015. On other
sequences both are the inverse of `tags_of`. Other schemes are recognised and read as IOB2."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rpbert.config.run import Scheme

Span: TypeAlias = tuple[str, int, int]
"""An entity: its label, its first word, and the word after its last."""
Lexicon: TypeAlias = frozenset[str]
"""Digests of entities, so that a model can know those of its training without their text."""

OUTSIDE = "O"


# What a letter of BIOES, BMES or BILOU is in IOB2; the last ones close an entity.
_LETTERS = {"B": "B", "I": "I", "M": "I", **dict.fromkeys("EL", "I"), **dict.fromkeys("SUW", "B")}
_CLOSING = "ELSUW"


def is_tag(tag: str, letters: Iterable[str] = "BI") -> bool:
    """Whether `tag` is ``O``, or one of `letters`, a hyphen and a label."""
    label = tag[2:]
    named = label.isprintable() and label != "" and label == label.strip()
    return tag == OUTSIDE or (tag[:1] in letters and tag[1:2] == "-" and named)


@dataclass(frozen=True)
class TagReading:
    """How the tags and labels of a file are read."""

    scheme: Scheme | None = "iob2"  # None: as they are, in any scheme
    merges_other: bool = True  # OTHER and MISC are two spellings of one type

    def label(self, label: str) -> str:
        """An entity type in its one spelling."""
        return "MISC" if self.merges_other and label == "OTHER" else label

    def is_tag(self, tag: str) -> bool:
        """Whether the scheme has such a tag."""
        return is_tag(tag, "BI" if self.scheme in ("iob1", "iob2") else _LETTERS)

    def tags(self, given: Sequence[str]) -> tuple[str, ...]:
        """The tags of a post as IOB2, their labels in one spelling."""
        tags = [tag[:2] + self.label(tag[2:]) for tag in given]
        if self.scheme == "iob1":
            return tuple(repair(tags))
        return tuple(tags if self.scheme in (None, "iob2") else _without_ends(tags))


AS_IOB2 = TagReading()


def _without_ends(tags: Sequence[str]) -> list[str]:
    """BIOES, BMES or BILOU as IOB2. As conlleval reads them, nothing goes on behind a closing
    letter."""
    found = []
    for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
        letter = _LETTERS.get(tag[0], tag[0])
        closed = before[0] in _CLOSING and before[1:] == tag[1:]
        found.append(("B" if letter == "I" and closed else letter) + tag[1:])
    return found


def scheme_of(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that tags are written in, where they tell; else IOB2.
    An entity of BIOES or BILOU has a letter that closes it; one of IOB1 begins with ``I-``, unless
    it follows another of its type."""
    letters, first = Counter[str](), Counter[str]()
    for tags in sequences:
        for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
            letters[tag[0]] += 1
            first[tag[0]] += before[1:] != tag[1:]
    ends = {"bioes": "ESW", "bilou": "LU"}
    closed = {name: sum(letters[letter] for letter in of) for name, of in ends.items()}
    if max(closed.values()) > letters["B"] / 2:
        return "bioes" if closed["bioes"] >= closed["bilou"] else "bilou"
    return "iob1" if first["I"] > max(1, 9 * first["B"]) else "iob2"


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
