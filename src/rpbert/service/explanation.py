"""An explanation as JSON, small enough to be asked for at every move of a slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rpbert.analysis import Explanation
from rpbert.data import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECIMALS = 6


def explanation_json(
    found: Explanation, text_only: Prediction | None, image_reason: str
) -> dict[str, Any]:
    """The JSON types of `schema.ExplanationOut`."""
    post = found.post
    return {
        "prediction": found.prediction.to_dict(),
        "text_only": text_only.to_dict() if text_only else None,
        "words": [
            {"text": word, "start": start, "end": end}
            for word, (start, end) in zip(post.words, post.spans, strict=True)
        ],
        "attention": _attention(found.attention),
        "s_tv": found.s_tv,
        "s_tv_per_word": found.s_tv_per_word,
        "image_reason": image_reason,
    }


def _attention(shares: NDArray[np.float64] | None) -> dict[str, Any] | None:
    if shares is None:
        return None
    return {
        "all": shares.sum(0).round(DECIMALS).tolist(),
        "words": shares.round(DECIMALS).tolist(),
    }
