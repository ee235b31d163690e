"""Scores: gold and predicted tags or relations in, precision, recall and F1 out.
Entities are counted by two scorers, because published figures use either and the gold of
Twitter-2015 is malformed: seqeval in strict IOB2 mode, where a lone ``I-X`` is no entity, and
conlleval (also seqeval's default), where it opens one. A score is never shown without its scorer
and its support, the number of gold entities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

from rpbert.data.labels import Lexicon, Span, entity_digest, lenient_spans, strict_spans
from rpbert.errors import InputError
from rpbert.types import Calibration

Tags: TypeAlias = Sequence[str]

SCORERS: Mapping[str, str] = {"strict": "seqeval, strict IOB2", "lenient": "conlleval"}
RELATION_THRESHOLD = 0.5  # an image adds where r is above this
ADDS, DOES_NOT_ADD = "image adds", "image doesn't add"
BINS = 15  # of the calibration error, of equal width (Guo et al. 2017, section 2)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are in the gold, how many were predicted, and how many of these are right."""

    gold: int = 0
    predicted: int = 0
    correct: int = 0

    @property
    def precision(self) -> float:
        """Share of the predicted that is right; 0 where nothing was predicted."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold that was found; 0 where there is none."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is right."""
        total = self.gold + self.predicted
        return 2 * self.correct / total if total else 0.0

    def to_dict(self) -> dict[str, float]:
        """Scores in [0, 1] and counts, as JSON types."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        counts = {"support": self.gold, "predicted": self.predicted, "correct": self.correct}
        return {**shares, **counts}


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Scores of entities under one scorer: over all entities (micro average), and by type."""

    overall: Counts
    by_type: Mapping[str, Counts]

    @property
    def f1(self) -> float:
        """Over all entities."""
        return self.overall.f1

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        by_type = {label: counts.to_dict() for label, counts in self.by_type.items()}
        return {**self.overall.to_dict(), "by_type": by_type}


@dataclass(frozen=True, slots=True)
class TagScores:
    """Scores of the same entities under both scorers, also by group where posts were grouped."""

    posts: int
    strict: SpanScores
    lenient: SpanScores
    by_group: Mapping[str, TagScores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        found: dict[str, Any] = {"posts": self.posts, "scorers": dict(SCORERS)}
        found |= {name: getattr(self, name).to_dict() for name in SCORERS}
        if self.by_group:
            found["by_group"] = {name: group.to_dict() for name, group in self.by_group.items()}
        return found


@dataclass(frozen=True, slots=True)
class RelationScores:
    """Scores of the relation classifier; `mean_r` is of each class, None where it has no post."""

    adds: Counts
    does_not_add: Counts
    mean_r: tuple[float | None, float | None] = (None, None)

    @property
    def support(self) -> int:
        """Number of posts."""
        return self.adds.gold + self.does_not_add.gold

    @property
    def accuracy(self) -> float:
        """Share of posts that are classified right; 0 where there are none."""
        right = self.adds.correct + self.does_not_add.correct
        return right / self.support if self.support else 0.0

    @property
    def macro_f1(self) -> float:
        """Mean of both classes' F1."""
        return (self.adds.f1 + self.does_not_add.f1) / 2

    @property
    def weighted_f1(self) -> float:
        """Mean of both classes' F1, weighted by their support."""
        classes = (self.adds, self.does_not_add)
        return sum(c.f1 * c.gold for c in classes) / self.support if self.support else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "support": self.support,
            "adds": self.adds.to_dict(),
            "does_not_add": self.does_not_add.to_dict(),
            "mean_r": {"adds": self.mean_r[1], "does_not_add": self.mean_r[0]},
        }


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """Expected calibration error of some scores, without and with their temperature."""

    before: float
    after: float
    support: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a model does on a split."""

    tags: TagScores | None  # None where the posts have relation labels only, as TRC's
    by_familiarity: Mapping[str, TagScores] = field(default_factory=dict)  # ``seen``, ``unseen``
    relation: RelationScores | None = None  # of posts whose image could be read
    images: Mapping[str, int] = field(default_factory=dict)  # posts by image status
    cut_words: int = 0  # of raw texts, where a gold entity begins or ends inside a word
    fp32_f1: float | None = None  # strict, where another precision was scored
    calibration: Mapping[str, CalibrationScores] = field(default_factory=dict)  # spans, relation

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        return {
            "tags": self.tags.to_dict() if self.tags else None,
            "by_familiarity": {k: scores.to_dict() for k, scores in self.by_familiarity.items()},
            "relation": self.relation.to_dict() if self.relation else None,
            "images": dict(self.images),
            "cut_words": self.cut_words,
            "fp32_f1": self.fp32_f1,
            "calibration": {name: asdict(error) for name, error in self.calibration.items()},
        }


def relation_groups(
    labels: Sequence[float | None], scores: Sequence[float | None]
) -> list[str | None] | None:
    """The relation of each post as a group: by labels if there are any, else by r, else None."""
    known = labels if any(label is not None for label in labels) else scores
    if all(score is None for score in known):
        return None
    names = {True: ADDS, False: DOES_NOT_ADD}
    return [None if score is None else names[score > RELATION_THRESHOLD] for score in known]


def score_spans(
    gold: Iterable[Collection[Span]], predicted: Iterable[Collection[Span]]
) -> SpanScores:
    """Scores of the entities of each post; one is right where label, first and last word are."""
    counts = Counter[str](), Counter[str](), Counter[str]()  # gold, predicted, correct
    for true, found in zip(map(set, gold), map(set, predicted), strict=True):
        for count, spans in zip(counts, (true, found, true & found), strict=True):
            count.update(label for label, _, _ in spans)
    labels = sorted(counts[0].keys() | counts[1].keys())
    by_type = {label: Counts(*(count[label] for count in counts)) for label in labels}
    return SpanScores(Counts(*(count.total() for count in counts)), by_type)


def score_tags(
    gold: Sequence[Tags], predicted: Sequence[Tags], groups: Sequence[str | None] | None = None
) -> TagScores:
    """Scores of predicted tags under both scorers, also by group; gold tags may be malformed."""
    of_group: dict[str, tuple[list[Tags], list[Tags]]] = {}
    for true, found, group in zip(gold, predicted, groups or [None] * len(gold), strict=True):
        if len(true) != len(found):
            raise InputError("tags", f"{len(found)} predicted for a post of {len(true)}", "as many")
        if group is not None:
            trues, founds = of_group.setdefault(group, ([], []))
            trues.append(true)
            founds.append(found)
    return TagScores(
        posts=len(gold),
        strict=score_spans(map(strict_spans, gold), map(strict_spans, predicted)),
        lenient=score_spans(map(lenient_spans, gold), map(lenient_spans, predicted)),
        by_group={name: score_tags(*rows) for name, rows in sorted(of_group.items())},
    )


def score_familiarity(
    words: Sequence[Sequence[str]],
    gold: Sequence[Tags],
    predicted: Sequence[Tags],
    lexicon: Lexicon,
) -> dict[str, TagScores]:
    """Scores of the entities ``seen`` in training and of those ``unseen``.
    An entity, gold or predicted, is seen if one of its type and words (case ignored) is in the
    lexicon (`rpbert.data.labels.entity_lexicon`) of the training split."""

    def scores(read: Callable[[Tags], list[Span]], seen: bool) -> SpanScores:
        def chosen(sequences: Sequence[Tags]) -> list[list[Span]]:
            return [
                [span for span in read(tags) if (entity_digest(span, post) in lexicon) == seen]
                for post, tags in zip(words, sequences, strict=True)
            ]

        return score_spans(chosen(gold), chosen(predicted))

    return {
        name: TagScores(len(gold), scores(strict_spans, seen), scores(lenient_spans, seen))
        for name, seen in (("seen", True), ("unseen", False))
    }


def score_relations(known: Sequence[tuple[float, float]]) -> RelationScores:
    """Scores of r (Eq. 2) against labels, which may be probabilities: pairs of label and r."""
    counts: list[Counts] = []
    means: list[float | None] = []
    for adds in (False, True):
        predicted = sum((r > RELATION_THRESHOLD) == adds for _, r in known)
        scores = [r for gold, r in known if (gold > RELATION_THRESHOLD) == adds]
        correct = sum((r > RELATION_THRESHOLD) == adds for r in scores)
        counts.append(Counts(len(scores), predicted, correct))
        means.append(fmean(scores) if scores else None)
    return RelationScores(counts[1], counts[0], (means[0], means[1]))


def expected_calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """ECE = Σ_m |B_m| / n · |accuracy(B_m) - confidence(B_m)| (Guo et al. 2017, Eq. 3).
    `scores` are the probabilities in [0, 1] that the predictions give themselves."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, correct in zip(scores, right, strict=True):
        # (m - 1) / M < score <= m / M
        bins.setdefault(max(math.ceil(score * BINS), 1), []).append((score, correct))
    gaps = (abs(sum(c for _, c in held) - sum(s for s, _ in held)) for held in bins.values())
    return sum(gaps) / max(len(scores), 1)


def spans_right(gold: Sequence[Tags], predicted: Sequence[Tags]) -> list[bool]:
    """Whether each predicted span, post by post, is in the gold (strict IOB2)."""
    pairs = zip(gold, predicted, strict=True)
    return [span in strict_spans(true) for true, found in pairs for span in strict_spans(found)]


def relation_confidences(
    known: Sequence[tuple[float, float]], calibration: Calibration
) -> tuple[list[float], list[bool]]:
    """The probability of the class that r names, of each label and r, and whether it is right."""
    scores = [calibration.relation_probability(r) for _, r in known]
    right = [(r > RELATION_THRESHOLD) == (gold > RELATION_THRESHOLD) for gold, r in known]
    return [max(score, 1 - score) for score in scores], right


def relation_calibration(
    known: Sequence[tuple[float, float]], calibration: Calibration
) -> CalibrationScores:
    """The calibration error of r as the probability of the class that it names."""
    before, after = (
        expected_calibration_error(*relation_confidences(known, used))
        for used in (Calibration(), calibration)
    )
    return CalibrationScores(before, after, len(known), calibration.relation)
