"""Whether scores are probabilities: calibration error, and the temperatures that correct it.

Guo, C.; Pleiss, G.; Sun, Y.; and Weinberger, K. Q. 2017. On Calibration of Modern Neural
Networks. In ICML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

BINS = 15
"""Of equal width, as in the paper's section 2."""
_NEARLY = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a model's scores are divided by before they become probabilities; 1 leaves them.

    Neither changes what is predicted: a temperature keeps the order of tag sequences, and the
    relation that is reported as r stays the share of the image that was let through.

    Attributes:
        spans: temperature of the CRF, whose sequences have p(y) ∝ exp(s(y) / T).
        relation: temperature of the logits of r (Eq. 2).
    """

    spans: float = 1.0
    relation: float = 1.0

    def relation_probability(self, score: float) -> float:
        """The probability that the image adds, of a relation score r in [0, 1]."""
        return tempered(score, self.relation)


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """Expected calibration error before and after the temperature.

    Attributes:
        support: predictions it is of.
        temperature: that was fitted on the development split.
    """

    before: float
    after: float
    support: int
    temperature: float

    def to_dict(self) -> dict[str, Any]:
        """Errors in [0, 1], as JSON types."""
        return asdict(self)


def expected_calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """ECE = Σ_m |B_m| / n · |accuracy(B_m) - confidence(B_m)| (Eq. 3); 0 without predictions.

    Args:
        scores: the probability that each prediction gives itself, in [0, 1].
        right: whether it is.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, correct in zip(scores, right, strict=True):
        # (m - 1) / M < score <= m / M
        bins.setdefault(max(math.ceil(score * BINS), 1), []).append((score, correct))
    gaps = (abs(sum(c for _, c in held) - sum(s for s, _ in held)) for held in bins.values())
    return sum(gaps) / max(len(scores), 1)


def calibration_scores(
    before: Sequence[float], after: Sequence[float], right: Sequence[bool], temperature: float
) -> CalibrationScores:
    """The error of scores without and with their temperature."""
    return CalibrationScores(
        before=expected_calibration_error(before, right),
        after=expected_calibration_error(after, right),
        support=len(right),
        temperature=temperature,
    )


def relation_calibration(
    scores: Sequence[float], adds: Sequence[bool], calibration: Calibration
) -> CalibrationScores:
    """The error of r as the probability that the image adds, made that of the class it names."""
    told = [score > 0.5 for score in scores]
    right = [named == truth for named, truth in zip(told, adds, strict=True)]
    after = [calibration.relation_probability(score) for score in scores]
    before, after = ([max(s, 1 - s) for s in found] for found in (list(scores), after))
    return calibration_scores(before, after, right, calibration.relation)


def tempered(probability: float, temperature: float) -> float:
    """σ(logit(p) / T); 0 and 1 as nearly so."""
    if temperature == 1:
        return probability
    kept = min(max(probability, _NEARLY), 1 - _NEARLY)
    return 1 / (1 + math.exp(-math.log(kept / (1 - kept)) / temperature))
