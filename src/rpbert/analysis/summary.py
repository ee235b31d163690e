"""A post as one or two models see it, and what comes of many: Fig. 3 and the means beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from rpbert.analysis.attention import Explanation
from rpbert.analysis.errors import OUTCOMES, Outcome, outcome
from rpbert.analysis.statistics import Correlation, Mean, Sample
from rpbert.data.labels import Span, strict_spans
from rpbert.evaluation.scoring import RELATION_THRESHOLD
from rpbert.types import Entity, Post

Measure: TypeAlias = Literal["s_tv", "s_tv_per_word"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
RELATIONS = {False: "irrelevant", True: "relevant"}
PAPER: Mapping[str, tuple[float, float]] = {
    "irrelevant": (0.041, 0.034),
    "relevant": (0.042, 0.102),
}
"""Mean S_TV without and with propagation, on Snap Res. ("Ablation study")."""
BINS = 10
"""Of r, each of width 1/BINS; the last one holds r = 1 too."""
POINTS = 1500
"""Most posts that the figure draws; its means are of all."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A post as each of the models explains it.

    Attributes:
        explanations: of the model, and of the one it is compared with if there is one.
    """

    post: Post
    explanations: tuple[Explanation, ...]

    @property
    def gold(self) -> list[Span] | None:
        """The gold entities, by their characters; None where the post has no tags."""
        if self.post.tags is None:
            return None
        spans = self.post.spans
        found = strict_spans(self.post.tags)
        return [(label, spans[first][0], spans[end - 1][1]) for label, first, end in found]

    @property
    def found(self) -> list[list[Span]]:
        """The entities each model finds, by their characters."""
        return [spans_of(e.prediction.entities) for e in self.explanations]

    @property
    def outcome(self) -> Outcome:
        """How it came out."""
        return outcome(self.gold, *self.found)

    @property
    def r(self) -> float | None:
        """The relation score of the first model that has one; None without a usable image."""
        if self.explanations[0].attention is None:
            return None
        scores = [e.prediction.relation for e in self.explanations]
        return next((score for score in scores if score is not None), None)

    @property
    def label(self) -> bool | None:
        """Whether the image adds to the text, as the data has it."""
        known = self.post.relation
        return None if known is None else known > RELATION_THRESHOLD


def spans_of(entities: Sequence[Entity]) -> list[Span]:
    """Entities as spans of characters."""
    return [(entity.label, entity.start, entity.end) for entity in entities]


@dataclass(frozen=True, slots=True)
class Point:
    """A post in the figure: r, the label, and each model's value of each measure."""

    r: float
    label: bool | None
    values: Mapping[Measure, tuple[float | None, ...]]


class Summary:
    """Adds up posts as they come, in constant memory.

    Args:
        names: of the model, and of the one it is compared with if there is one.
    """

    def __init__(self, names: Sequence[str], seed: int = 0) -> None:
        self.names = tuple(names)
        self.posts = 0
        self.images: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.points: Sample[Point] = Sample(POINTS, seed)
        self.groups: dict[tuple[str, str, Measure], Group] = {}
        models = range(len(names))
        self.by_r = {m: [[Mean() for _ in range(BINS)] for _ in models] for m in MEASURES}
        self.correlations = {m: [Correlation() for _ in models] for m in MEASURES}

    def add(self, seen: Seen) -> None:
        """One post more."""
        self.posts += 1
        self.images[seen.explanations[0].prediction.image] += 1
        self.outcomes[seen.outcome] += 1
        if seen.explanations[0].attention is None:
            return
        r = seen.r
        groups = {"label": seen.label, "r": None if r is None else r > RELATION_THRESHOLD}
        values = {m: tuple(getattr(e, m) for e in seen.explanations) for m in MEASURES}
        for measure, of_models in values.items():
            for grouping, relevant in groups.items():
                if relevant is not None:
                    key = (grouping, RELATIONS[relevant], measure)
                    group = self.groups.setdefault(key, Group(len(self.names)))
                    group.add(of_models)
            for model, value in enumerate(of_models):
                if r is not None and value is not None:
                    self.by_r[measure][model][min(int(r * BINS), BINS - 1)].add(value)
                    self.correlations[measure][model].add(r, value)
        if r is not None:
            score = r
            self.points.offer(lambda: Point(score, seen.label, values))

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON types; `change` is the first model's mean less the second's."""
        return {
            "models": list(self.names),
            "posts": self.posts,
            "images": dict(self.images),
            "outcomes": {name: self.outcomes[name] for name in OUTCOMES if self.outcomes[name]},
            "means": [
                {"by": by, "relation": relation, "measure": measure, **group.to_dict()}
                for (by, relation, measure), group in sorted(self.groups.items())
            ],
            "correlation_with_r": {
                measure: [c.value for c in self.correlations[measure]] for measure in MEASURES
            },
            "paper": {relation: list(values) for relation, values in PAPER.items()},
        }


class Group:
    """Posts of one relation: the mean of each model, and of the difference post by post."""

    def __init__(self, models: int) -> None:
        self.posts = 0
        self.means = [Mean() for _ in range(models)]
        self.change = Mean()

    def add(self, values: Sequence[float | None]) -> None:
        """One post more."""
        self.posts += 1
        for mean, value in zip(self.means, values, strict=True):
            if value is not None:
                mean.add(value)
        if len(values) > 1 and values[0] is not None and values[1] is not None:
            self.change.add(values[0] - values[1])

    def to_dict(self) -> dict[str, Any]:
        """Means with their standard errors; None for a model without attention to the image."""
        return {
            "posts": self.posts,
            "models": [_figures(mean) for mean in self.means],
            "change": _figures(self.change),
        }


def _figures(mean: Mean) -> dict[str, float | None] | None:
    return {"mean": mean.mean, "error": mean.error} if mean.count else None
