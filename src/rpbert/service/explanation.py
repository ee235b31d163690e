"""An explanation as JSON, small enough to be asked for at every move of a slider."""

from __future__ import annotations

from typing import Any

from rpbert.analysis import Explanation
from rpbert.types import Prediction

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
        "attention": _attention(found),
        "s_tv": found.s_tv,
        "s_tv_per_word": found.s_tv_per_word,
        "image_reason": image_reason,
    }


def _attention(found: Explanation) -> dict[str, Any] | None:
    shares, boxes = found.attention, found.boxes
    if shares is None or boxes is None:
        return None
    return {
        "all": shares.sum(0).round(DECIMALS).tolist(),
        "words": shares.round(DECIMALS).tolist(),
        "boxes": boxes.astype(float).round(DECIMALS).tolist(),
    }
