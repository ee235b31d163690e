"""A post as one or two models see it, its errors, and the figures over all posts (Fig. 3)."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from rpbert.analysis.attention import Explanation
from rpbert.data.labels import Span, strict_spans
from rpbert.evaluation.scoring import RELATION_THRESHOLD
from rpbert.types import Entity, Post

if TYPE_CHECKING:
    from numpy.typing import NDArray

Measure: TypeAlias = Literal["s_tv", "s_tv_per_word"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
RELATIONS = ("irrelevant", "relevant")
PAPER: Mapping[str, tuple[float, float]] = {
    "irrelevant": (0.041, 0.034),
    "relevant": (0.042, 0.102),
}
"""Mean S_TV without and with propagation, on Snap Res. ("Ablation study")."""

ErrorKind: TypeAlias = Literal["type", "boundary", "missed", "spurious"]
Outcome: TypeAlias = Literal[
    "mended", "broken", "differs", "both wrong", "wrong", "both right", "right", "unlabelled"
]
"""How the models answer a post, in the order in which a reader wants to see posts.

With one model ``wrong`` or ``right``. Of two, by what the first makes of the second's answer:
``mended`` and ``broken`` change between wrong and right, ``differs`` is wrong in two ways,
``both wrong`` and ``both right`` agree. ``unlabelled`` posts have no gold entities; where two
models answer such a post differently, that is ``differs``.
"""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class EntityError:
    """A gold entity that was not found as it is, or a found one that is not gold."""

    kind: ErrorKind  # type: the right words under a wrong label; boundary: they overlap
    gold: Span | None
    found: Span | None


def entity_errors(gold: Sequence[Span], found: Sequence[Span]) -> list[EntityError]:
    """Every difference once: same words are paired first, then overlaps, then single ones."""
    lost = [span for span in gold if span not in found]
    wrong = [span for span in found if span not in gold]
    errors = []
    kinds: tuple[ErrorKind, ...] = ("type", "boundary")
    for kind in kinds:
        for one in list(lost):
            for other in wrong:
                same = one[1:] == other[1:]
                if same or (kind == "boundary" and one[1] < other[2] and other[1] < one[2]):
                    errors.append(EntityError(kind, one, other))
                    lost.remove(one)
                    wrong.remove(other)
                    break
    errors += [EntityError("missed", span, None) for span in lost]
    errors += [EntityError("spurious", None, span) for span in wrong]
    return sorted(errors, key=lambda error: (error.gold or error.found or ("", 0, 0))[1:])


def outcome(gold: Sequence[Span] | None, *answers: Sequence[Span]) -> Outcome:
    """How a post came out, given the answers of one model or of two."""
    same = all(set(answer) == set(answers[0]) for answer in answers)
    if gold is None:
        return "unlabelled" if same else "differs"
    right = [set(answer) == set(gold) for answer in answers]
    if len(answers) == 1:
        return "right" if right[0] else "wrong"
    if any(right):
        return "both right" if all(right) else "mended" if right[0] else "broken"
    return "both wrong" if same else "differs"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A post as the model explains it, and the one it is compared with if there is one."""

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
    def outcome(self) -> Outcome:
        """How the models answer it."""
        return outcome(self.gold, *(spans_of(e.prediction.entities) for e in self.explanations))

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


class Summary:
    """Collects a few numbers of every post, about 50 bytes each; `names` are of the models."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.posts = 0
        self.images: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self._numbers = array("d")

    def add(self, seen: Seen) -> None:
        """Count a post, and keep r, label and S_TV where its image was used."""
        self.posts += 1
        self.images[seen.explanations[0].prediction.image] += 1
        self.outcomes[seen.outcome] += 1
        if seen.explanations[0].attention is not None:
            values = [getattr(e, measure) for measure in MEASURES for e in seen.explanations]
            for number in (seen.r, seen.label, *values):
                self._numbers.append(np.nan if number is None else number)

    @property
    def r(self) -> NDArray[np.float64]:
        """r of every post whose image was used, NaN without one. Shape: (posts,)."""
        return self._table()[:, 0]

    @property
    def label(self) -> NDArray[np.float64]:
        """1 where the image adds by the data's label, 0 where not, else NaN. Shape: (posts,)."""
        return self._table()[:, 1]

    def values(self, measure: Measure) -> NDArray[np.float64]:
        """The measure by each model, NaN without attention. Shape: (posts, models)."""
        start = 2 + MEASURES.index(measure) * len(self.names)
        return self._table()[:, start : start + len(self.names)]

    def _table(self) -> NDArray[np.float64]:
        columns = 2 + len(MEASURES) * len(self.names)
        return np.array(self._numbers, dtype=np.float64).reshape(-1, columns)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON types; `change` is the first model's mean less the second's."""
        r = self.r
        above = np.where(np.isnan(r), np.nan, r > RELATION_THRESHOLD)
        correlations = {
            measure: [_correlation(r, column) for column in self.values(measure).T]
            for measure in MEASURES
        }
        return {
            "models": list(self.names),
            "posts": self.posts,
            "images": dict(self.images),
            "outcomes": {name: self.outcomes[name] for name in OUTCOMES if self.outcomes[name]},
            "means": [
                {"by": by, "relation": relation, "measure": measure, **_group(values[chosen])}
                for by, relevant in (("label", self.label), ("r", above))
                for wanted, relation in enumerate(RELATIONS)
                if (chosen := relevant == wanted).any()
                for measure in MEASURES
                for values in [self.values(measure)]
            ],
            "correlation_with_r": correlations,
            "paper": {relation: list(values) for relation, values in PAPER.items()},
        }


def _group(values: NDArray[np.float64]) -> dict[str, Any]:
    """Means of the posts of one relation with standard errors. Shape: (posts, models)."""
    changes = values[:, 0] - values[:, 1] if values.shape[1] > 1 else np.array([])
    return {
        "posts": len(values),
        "models": [_mean(column) for column in values.T],
        "change": _mean(changes),
    }


def _mean(values: NDArray[np.float64]) -> dict[str, float | None] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    error = float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else None
    return {"mean": float(known.mean()), "error": error}


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Pearson's; None where one side does not vary."""
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])
