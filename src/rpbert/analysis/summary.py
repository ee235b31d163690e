"""The figures over all posts (Fig. 3): S_TV by relation and by model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from rpbert.analysis.posts import OUTCOMES, Outcome
from rpbert.evaluation.scoring import RELATION_THRESHOLD

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


class Summary:
    """Collects a few numbers of every post; `names` are of the models."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.images: Counter[str] = Counter()
        self.outcomes: list[Outcome] = []  # of every post
        self._numbers: list[list[float | None]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a post, and keep r, label and S_TV where its image was used."""
        self.images[row["image"]] += 1
        self.outcomes.append(row["outcome"])
        if row["models"][0]["attention"] is not None:
            values = [model[measure] for measure in MEASURES for model in row["models"]]
            self._numbers.append([row["r"], row["label"], *values])

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
        r, outcomes = self.r, Counter(self.outcomes)
        above = np.where(np.isnan(r), np.nan, r > RELATION_THRESHOLD)
        values = {measure: self.values(measure) for measure in MEASURES}
        return {
            "models": list(self.names),
            "posts": len(self.outcomes),
            "images": dict(self.images),
            "outcomes": {name: outcomes[name] for name in OUTCOMES if outcomes[name]},
            "means": [
                {"by": by, "relation": relation, "measure": measure, **_group(of[chosen])}
                for by, relevant in (("label", self.label), ("r", above))
                for wanted, relation in enumerate(RELATIONS)
                if (chosen := relevant == wanted).any()
                for measure, of in values.items()
            ],
            "correlation_with_r": {
                measure: [_correlation(r, column) for column in of.T]
                for measure, of in values.items()
            },
            "paper": {relation: list(means) for relation, means in PAPER.items()},
        }


def _group(values: NDArray[np.float64]) -> dict[str, Any]:
    """Means of the posts of one relation with standard errors. Shape: (posts, models)."""
    change = _mean(values[:, 0] - values[:, 1]) if values.shape[1] > 1 else None
    return {"posts": len(values), "models": [_mean(of) for of in values.T], "change": change}


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
