"""A prediction as HTML for notebooks; `rpbert.types` imports this and not the other way round."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

IMAGES = {
    "used": "the image was used; r is not learnt",
    "none": "no image",
    "missing": "the image is missing",
    "unreadable": "the image is unreadable",
}
"""Shown where there is no relation score."""


def prediction_html(prediction: Any) -> str:
    """A `Prediction` as a fragment of HTML without script, legible on light and dark ground.

    All of its text is escaped.
    """
    text, parts, position = prediction.text, [], 0
    for entity in prediction.entities:
        label = escape(entity.label)
        parts += [
            escape(text[position : entity.start]),
            f'<mark data-label="{label}" title="{label}, score {entity.score:.2f}">',
            f"{escape(entity.text)}<span>{label}</span></mark>",
        ]
        position = entity.end
    marked = "".join([*parts, escape(text[position:])])
    r, shown = prediction.relation, IMAGES[prediction.image]
    if r is not None and prediction.image == "used":
        shown = f'<meter value="{r:.4f}"></meter> r = {r:.2f}: share of the image let through'
    return (
        f'<div class="rpbert-prediction"><style>{_style()}</style>'
        f'<p dir="auto">{marked}</p><p>{shown}</p></div>'
    )


@cache
def _style() -> str:
    return (files("rpbert") / "prediction.css").read_text(encoding="utf-8")
