"""Scores: gold and predicted tags or relations in, precision, recall and F1 out.
Entities are counted by two scorers, because published figures use either and the gold of
Twitter-2015 is malformed: seqeval in strict IOB2 mode, where a lone ``I-X`` is no entity, and
conlleval (also seqeval's default), where it opens one. A score is never shown without its scorer
and its support, the number of gold entities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from rpbert.data.labels import Lexicon, Span, entity_digest, lenient_spans, strict_spans
from rpbert.errors import InputError
from rpbert.types import Calibration

Tags: TypeAlias = Sequence[str]

SCORERS: Mapping[str, str] = {"strict": "seqeval, strict IOB2", "lenient": "conlleval"}
SHARES = ("precision", "recall", "f1")
RELATION_THRESHOLD = 0.5  # an image adds where r is above this
ADDS, DOES_NOT_ADD = "image adds", "image doesn't add"
BINS = 15  # of the calibration error, of equal width (Guo et al. 2017, section 2)


@dataclass(frozen=True)
class Counts:
    """Scores in [0, 1], 0 where there is nothing to divide by, and what they are of (`count`)."""

    precision: float
    recall: float
    f1: float
    support: int  # in the gold
    predicted: int
    correct: int  # of the predicted


def count(support: int = 0, predicted: int = 0, correct: int = 0) -> Counts:
    """Precision, recall and their harmonic mean."""
    f1 = 2 * correct / max(support + predicted, 1)
    return Counts(
        correct / max(predicted, 1), correct / max(support, 1), f1, support, predicted, correct
    )


@dataclass(frozen=True)
class SpanScores(Counts):
    """Scores of entities under one scorer: over all entities (micro average), and by type."""

    by_type: Mapping[str, Counts]


@dataclass(frozen=True)
class TagScores:
    """Scores of the same entities under both scorers, also by group where posts were grouped."""

    posts: int
    strict: SpanScores
    lenient: SpanScores
    by_group: Mapping[str, TagScores] = field(default_factory=dict)
    scorers: Mapping[str, str] = field(default_factory=lambda: dict(SCORERS))


@dataclass(frozen=True)
class RelationScores:
    """Scores of the relation classifier."""

    accuracy: float
    macro_f1: float
    weighted_f1: float
    support: int  # posts
    adds: Counts
    does_not_add: Counts
    mean_r: Mapping[str, float | None]  # of each class, None where it has no post


@dataclass(frozen=True)
class CalibrationScores:
    """Expected calibration error of some scores, without and with their temperature."""

    before: float
    after: float
    support: int
    temperature: float


@dataclass(frozen=True)
class CurvePoint(Counts):
    """Scores of the entities that are left where a score below `threshold` drops one."""

    threshold: float
    coverage: float  # share of the entities that are left


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on a split; `asdict` makes it JSON types."""

    tags: TagScores | None  # None where the posts have relation labels only, as TRC's
    by_familiarity: Mapping[str, TagScores] = field(default_factory=dict)  # ``seen``, ``unseen``
    relation: RelationScores | None = None  # of posts whose image could be read
    images: Mapping[str, int] = field(default_factory=dict)  # posts by image status
    cut_words: int = 0  # of raw texts, where a gold entity begins or ends inside a word
    fp32_f1: float | None = None  # strict, where another precision was scored
    calibration: Mapping[str, CalibrationScores] = field(default_factory=dict)  # spans, relation
    partial: Mapping[str, Counts] = field(default_factory=dict)  # `score_partial`
    curve: Sequence[CurvePoint] = ()


def score_table(
    tags: Mapping[str, Any] | None,
    relation: Mapping[str, Any] | None,
    familiar: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    partial: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[tuple[str, ...]]:
    """The rows of a table, its header first: of what, by which scorer, in %, and the support.
    Takes the parts of an `Evaluation` as JSON types."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    if tags is not None:
        for key, scorer in SCORERS.items():
            rows.append(("all entities", scorer, tags[key]))
            rows += [(label, scorer, of) for label, of in tags[key]["by_type"].items()]
            rows += [(group, scorer, of[key]) for group, of in tags.get("by_group", {}).items()]
            rows += [(f"{name} in training", scorer, of[key]) for name, of in familiar.items()]
    rows += [("all entities", f"nervaluate, {name}", of) for name, of in partial.items()]
    if relation is not None:
        rule = f"r > {RELATION_THRESHOLD}"
        rows += [(ADDS, rule, relation["adds"]), (DOES_NOT_ADD, rule, relation["does_not_add"])]
    shown = [
        (name, scorer, *(f"{100 * of[key]:.2f}" for key in SHARES), f"{of['support']:,}")
        for name, scorer, of in rows
    ]
    return [("%", "scorer", "precision", "recall", "F1", "support"), *shown]


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
        for of, spans in zip(counts, (true, found, true & found), strict=True):
            of.update(label for label, _, _ in spans)
    labels = sorted(counts[0].keys() | counts[1].keys())
    by_type = {label: count(*(of[label] for of in counts)) for label in labels}
    return SpanScores(**vars(count(*(of.total() for of in counts))), by_type=by_type)


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


def score_partial(gold: Sequence[Tags], predicted: Sequence[Tags]) -> dict[str, Counts]:
    """Scores that let a near miss count (Segura-Bedmar et al. 2013, SemEval task 9.1): ``exact``
    asks for the words alone, ``type`` for the label and some word, ``partial`` for some word and
    counts half where it is not all of them."""
    from nervaluate import Evaluator

    both = [[strict_spans(post) for post in posts] for posts in (gold, predicted)]
    labels = sorted({label for posts in both for post in posts for label, _, _ in post})
    given = [
        [[{"label": k, "start": first, "end": end - 1} for k, first, end in post] for post in posts]
        for posts in both
    ]
    found = Evaluator(*given, tags=labels, loader="dict").evaluate()["overall"]
    names = {"exact": "exact", "partial": "partial", "type": "ent_type"}
    return {
        name: Counts(of.precision, of.recall, of.f1, of.possible, of.actual, of.correct)
        for name, of in ((name, found[key]) for name, key in names.items())
    }


def threshold_curve(
    scores: Sequence[float], right: Sequence[bool], support: int
) -> tuple[CurvePoint, ...]:
    """Scores by threshold, in steps of 0.05, of predicted entities with their own scores."""
    points = []
    for step in range(20):
        kept = [good for score, good in zip(scores, right, strict=True) if score >= step / 20]
        counts, coverage = count(support, len(kept), sum(kept)), len(kept) / max(len(scores), 1)
        points.append(CurvePoint(**vars(counts), threshold=step / 20, coverage=coverage))
    return tuple(points)


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
    classes: dict[str, Counts] = {}
    means: dict[str, float | None] = {}
    for name, adds in (("adds", True), ("does_not_add", False)):
        of_class = [r for label, r in known if (label > RELATION_THRESHOLD) == adds]
        predicted, correct = (
            sum((r > RELATION_THRESHOLD) == adds for r in scores)
            for scores in ([r for _, r in known], of_class)
        )
        classes[name] = count(len(of_class), predicted, correct)
        means[name] = fmean(of_class) if of_class else None
    both, posts = classes.values(), max(len(known), 1)
    return RelationScores(
        accuracy=sum(of.correct for of in both) / posts,
        macro_f1=fmean(of.f1 for of in both),
        weighted_f1=sum(of.f1 * of.support for of in both) / posts,
        support=len(known),
        **classes,
        mean_r=means,
    )


def expected_calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """ECE = Σ_m |B_m| / n · |accuracy(B_m) - confidence(B_m)| (Guo et al. 2017, Eq. 3).
    `scores` are the probabilities in [0, 1] that the predictions give themselves."""
    confidence = np.array(scores, dtype=np.float64)
    bins = np.ceil(confidence * BINS).clip(1).astype(int)  # (m - 1) / M < score <= m / M
    gaps = np.bincount(bins, weights=np.array(right, dtype=np.float64) - confidence)
    return float(np.abs(gaps).sum() / max(len(scores), 1))


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
