"""A prediction as HTML for notebooks, and as the dictionary that displaCy draws."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpbert.types import Entity, Prediction

IMAGES = {
    "used": "the image was used, unweighed",
    "none": "no image",
    "missing": "the image is missing",
    "unreadable": "the image is unreadable",
}
"""What became of an image, where no relation score says it."""


def prediction_html(prediction: Prediction) -> str:
    """A fragment of HTML without script, legible on light and on dark ground.

    Whatever stands in the prediction is text there, also where it looks like HTML.
    """
    return (
        f'<div class="rpbert-prediction"><style>{_style()}</style>'
        f'<p dir="auto">{_marked(prediction.text, prediction.entities)}</p>'
        f"<p>{_relation(prediction)}</p></div>"
    )


def displacy(prediction: Prediction) -> dict[str, Any]:
    """What ``spacy.displacy.render(…, style="ent", manual=True)`` takes.

    Source: https://spacy.io/usage/visualizers#manual-usage.
    """
    return {
        "text": prediction.text,
        "ents": [
            {"start": entity.start, "end": entity.end, "label": entity.label}
            for entity in prediction.entities
        ],
        "title": None,
    }


@cache
def _style() -> str:
    return (files("rpbert.integrations") / "prediction.css").read_text(encoding="utf-8")


def _marked(text: str, entities: list[Entity]) -> str:
    parts, position = [], 0
    for entity in entities:
        label = escape(entity.label)
        parts += [
            escape(text[position : entity.start]),
            f'<mark data-label="{label}" title="{label}, score {entity.score:.2f}">',
            f"{escape(entity.text)}<span>{label}</span></mark>",
        ]
        position = entity.end
    return "".join([*parts, escape(text[position:])])


def _relation(prediction: Prediction) -> str:
    r = prediction.relation
    if r is None or prediction.image != "used":
        return IMAGES[prediction.image]
    # A meter is drawn by the browser, in its own colours of the ground it stands on.
    return f'<meter value="{r:.4f}"></meter> r = {r:.2f}: so much of the image was let through'
