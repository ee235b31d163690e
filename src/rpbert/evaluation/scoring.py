"""Scores: gold and predicted tags or relations in, precision, recall and F1 out.

Entities are counted by two scorers side by side, because published figures use either and the
gold of Twitter-2015 is malformed: seqeval in strict IOB2 mode, where a lone ``I-X`` is no entity,
and conlleval (which is also seqeval's default), where it opens one. A score is therefore never
shown without its scorer and its support, the number of gold entities it is of.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

from rpbert.data.labels import Span, lenient_spans, strict_spans
from rpbert.errors import InputError
from rpbert.evaluation.confidence import CalibrationScores

Tags: TypeAlias = Sequence[str]
SpanReader: TypeAlias = Callable[[Tags], list[Span]]
Lexicon: TypeAlias = frozenset[str]
"""Digests of entities, so that a model can know those of its training without their text."""

SCORERS: Mapping[str, str] = {"strict": "seqeval, strict IOB2", "lenient": "conlleval"}
RELATION_THRESHOLD = 0.5
"""An image adds where r is above this."""
ADDS, DOES_NOT_ADD = "image adds", "image doesn't add"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are in the gold, how many were predicted, and how many of these are right."""

    gold: int = 0
    predicted: int = 0
    correct: int = 0

    @property
    def support(self) -> int:
        """What the recall is of: the gold count."""
        return self.gold

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
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "support": self.support,
            "predicted": self.predicted,
            "correct": self.correct,
        }


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Scores of entities under one scorer: over all entities (micro average), and by type."""

    overall: Counts
    by_type: Mapping[str, Counts]

    @property
    def precision(self) -> float:
        """Precision over all entities."""
        return self.overall.precision

    @property
    def recall(self) -> float:
        """Recall over all entities."""
        return self.overall.recall

    @property
    def f1(self) -> float:
        """F1 over all entities."""
        return self.overall.f1

    @property
    def support(self) -> int:
        """Number of gold entities."""
        return self.overall.support

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        by_type = {label: counts.to_dict() for label, counts in self.by_type.items()}
        return {**self.overall.to_dict(), "by_type": by_type}


@dataclass(frozen=True, slots=True)
class TagScores:
    """Scores of the same entities under both scorers.

    Attributes:
        posts: how many posts were scored.
        strict: as seqeval counts in strict IOB2 mode.
        lenient: as conlleval counts.
        by_group: scores of the posts of each group, where posts were grouped.
    """

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
    """Scores of the relation classifier: does the image add to the text (class 1) or not.

    Attributes:
        mean_r: mean of r where the image does not add, and where it does; None without posts.
    """

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
class Evaluation:
    """Everything that is known of how well a model does on a split.

    Attributes:
        tags: scores of the entities; None where the posts have relation labels only, as TRC's.
        by_familiarity: the same entities apart as ``seen`` and ``unseen`` in training, empty where
            the training entities are not known.
        relation: scores of the relation classifier on the posts whose image could be read; None
            without a classifier, or without labels.
        images: posts by what became of their image: used, none, missing, unreadable.
        cut_words: words of raw texts that were cut where a gold entity begins or ends inside
            them; tagging the same text, without the gold, does not cut them.
        calibration: expected calibration error of the scores of the spans found, and of r as the
            probability of the relation it tells, by ``spans`` and ``relation``.
        fp32_f1: F1 of all entities (strict) in float32, where another precision was scored.
    """

    tags: TagScores | None
    by_familiarity: Mapping[str, TagScores] = field(default_factory=dict)
    relation: RelationScores | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    cut_words: int = 0
    fp32_f1: float | None = None
    calibration: Mapping[str, CalibrationScores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Scores in [0, 1] and counts, as JSON types."""
        return {
            "tags": self.tags.to_dict() if self.tags else None,
            "by_familiarity": {k: scores.to_dict() for k, scores in self.by_familiarity.items()},
            "relation": self.relation.to_dict() if self.relation else None,
            "images": dict(self.images),
            "cut_words": self.cut_words,
            "fp32_f1": self.fp32_f1,
            "calibration": {name: error.to_dict() for name, error in self.calibration.items()},
        }


def relation_groups(
    labels: Sequence[float | None], scores: Sequence[float | None]
) -> list[str | None] | None:
    """The relation of each post as a group: by labels if there are any, else by the model's r.

    None where there is neither.
    """
    known = labels if any(label is not None for label in labels) else scores
    if all(score is None for score in known):
        return None
    names = {True: ADDS, False: DOES_NOT_ADD}
    return [None if score is None else names[score > RELATION_THRESHOLD] for score in known]


def score_spans(
    gold: Iterable[Collection[Span]], predicted: Iterable[Collection[Span]]
) -> SpanScores:
    """Scores of predicted entities; one is right where label, first and last word are.

    Args:
        gold: the entities of each post.
        predicted: the entities found in each post, in the same order.

    Raises:
        ValueError: not as many posts here as there.
    """
    of_gold: Counter[str] = Counter()
    of_predicted: Counter[str] = Counter()
    of_correct: Counter[str] = Counter()
    for true, found in zip(map(set, gold), map(set, predicted), strict=True):
        of_gold.update(label for label, _, _ in true)
        of_predicted.update(label for label, _, _ in found)
        of_correct.update(label for label, _, _ in true & found)
    by_type = {
        label: Counts(of_gold[label], of_predicted[label], of_correct[label])
        for label in sorted(of_gold.keys() | of_predicted.keys())
    }
    overall = Counts(of_gold.total(), of_predicted.total(), of_correct.total())
    return SpanScores(overall, by_type)


def score_tags(
    gold: Sequence[Tags],
    predicted: Sequence[Tags],
    groups: Sequence[str | None] | None = None,
) -> TagScores:
    """Scores of predicted tag sequences under both scorers.

    Args:
        gold: the tags of each post, malformed or not.
        predicted: the tags given to each post.
        groups: the group each post belongs to, such as its relation; None for no group.

    Raises:
        InputError: the sequences do not pair up.
    """
    _check_pairs(gold, predicted)
    by_group: dict[str, TagScores] = {}
    if groups is not None:
        if len(groups) != len(gold):
            raise InputError("groups", f"{len(groups)} posts", f"{len(gold)} posts as in the gold")
        for name in sorted({group for group in groups if group is not None}):
            rows = [row for row, group in enumerate(groups) if group == name]
            by_group[name] = score_tags([gold[i] for i in rows], [predicted[i] for i in rows])
    return TagScores(
        posts=len(gold),
        strict=score_spans(map(strict_spans, gold), map(strict_spans, predicted)),
        lenient=score_spans(map(lenient_spans, gold), map(lenient_spans, predicted)),
        by_group=by_group,
    )


def entity_lexicon(words: Sequence[Sequence[str]], tags: Sequence[Tags]) -> Lexicon:
    """The entities of a training split, read strictly: their types and words, case ignored."""
    return frozenset(
        _entry(span, post)
        for post, sequence in zip(words, tags, strict=True)
        for span in strict_spans(sequence)
    )


def score_familiarity(
    words: Sequence[Sequence[str]],
    gold: Sequence[Tags],
    predicted: Sequence[Tags],
    lexicon: Lexicon,
) -> dict[str, TagScores]:
    """Scores of entities seen in training and of those unseen.

    An entity, gold or predicted, is seen if one of the same type and the same words (case
    ignored) is in the lexicon. A gold entity and its correct prediction always fall together.

    Args:
        words: the words of each post.
        gold: the tags of each post.
        predicted: the tags given to each post.
        lexicon: the entities of the training split, by `entity_lexicon`.

    Returns:
        Scores named ``seen`` and ``unseen``.

    Raises:
        InputError: the sequences do not pair up.
    """
    _check_pairs(gold, predicted)

    def chosen(read: SpanReader, tags: Sequence[Tags], seen: bool) -> list[list[Span]]:
        return [
            [span for span in read(sequence) if (_entry(span, post) in lexicon) == seen]
            for post, sequence in zip(words, tags, strict=True)
        ]

    def scores(seen: bool) -> TagScores:
        strict, lenient = (
            score_spans(chosen(read, gold, seen), chosen(read, predicted, seen))
            for read in (strict_spans, lenient_spans)
        )
        return TagScores(len(gold), strict, lenient)

    return {"seen": scores(True), "unseen": scores(False)}


def score_relations(gold: Sequence[int], predicted_scores: Sequence[float]) -> RelationScores:
    """Scores of relation scores r against labels; r > 0.5 says that the image adds.

    Args:
        gold: 1 where the image adds to the meaning of the post, else 0.
        predicted_scores: r of each post (Eq. 2), in [0, 1].

    Raises:
        InputError: a label is neither 0 nor 1, or there are not as many scores as labels.
    """
    if len(gold) != len(predicted_scores):
        raise InputError(
            "relation scores", f"{len(predicted_scores)} posts", f"{len(gold)} posts as in the gold"
        )
    for post, label in enumerate(gold):
        if label not in (0, 1):
            raise InputError(f"relation of post {post}", repr(label), "0 or 1")
    found = [int(score > RELATION_THRESHOLD) for score in predicted_scores]
    pairs = Counter(zip(gold, found, strict=True))
    adds = Counts(sum(gold), sum(found), pairs[1, 1])
    does_not_add = Counts(len(gold) - adds.gold, len(gold) - adds.predicted, pairs[0, 0])
    of_class = [
        [score for label, score in zip(gold, predicted_scores, strict=True) if label == known]
        for known in (0, 1)
    ]
    low, high = (fmean(scores) if scores else None for scores in of_class)
    return RelationScores(adds, does_not_add, (low, high))


def _entry(span: Span, words: Sequence[str]) -> str:
    """The digest of an entity's label and lower-case words."""
    label, first, end = span
    content = "\n".join([label, *(word.lower() for word in words[first:end])])
    return hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _check_pairs(gold: Sequence[Tags], predicted: Sequence[Tags]) -> None:
    if len(gold) != len(predicted):
        raise InputError(
            "predicted tags", f"{len(predicted)} posts", f"{len(gold)} posts as in the gold"
        )
    for post, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        if len(true) != len(found):
            raise InputError(
                f"predicted tags of post {post}",
                f"{len(found)} tags",
                f"{len(true)} tags as in the gold",
            )
