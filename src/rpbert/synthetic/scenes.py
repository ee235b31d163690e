"""Drawn pictures that show what a name stands for: a person, a landscape, a logo or an object.

Within a scene everything varies: kind, number, colours, place, size, pose, background, clutter,
light, blur and noise. The colours alone say little of the type.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rpbert.synthetic.drawing.backgrounds import backdrop, clutter
from rpbert.synthetic.drawing.canvas import Canvas
from rpbert.synthetic.drawing.landscapes import landscape
from rpbert.synthetic.drawing.logos import logo
from rpbert.synthetic.drawing.objects import thing
from rpbert.synthetic.drawing.people import people

if TYPE_CHECKING:
    from PIL import Image

SCENES: dict[str, tuple[str, Callable[[Canvas, random.Random], str]]] = {
    "PER": ("person", people),
    "LOC": ("landscape", landscape),
    "ORG": ("logo", logo),
    "MISC": ("object", thing),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn picture.

    Attributes:
        image: RGB; its sides vary around the size asked for.
        kind: ``person``, ``landscape``, ``logo``, ``object`` or ``nothing``.
        caption: a plain sentence of what is drawn.
    """

    image: Image.Image
    kind: str
    caption: str


def nothing(canvas: Canvas, rng: random.Random) -> str:
    """What stands behind things, and no thing."""
    return f"nothing {backdrop(canvas, rng)}"


def draw(label: str | None, rng: random.Random, size: int = 224) -> Scene:
    """Draws a scene that shows an entity of the type.

    Args:
        label: the entity type: PER, LOC, ORG or MISC; None for a scene that shows none.
        rng: decides everything that varies.
        size: the picture has about size × size pixels; its shape varies from 2:3 to 3:2.
    """
    kind, drawing = ("nothing", nothing) if label is None else SCENES[label]
    aspect = rng.choice((1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)) * rng.uniform(0.95, 1.05)
    side = size * rng.uniform(0.9, 1.12)
    canvas = Canvas(max(8, round(side * aspect**0.5)), max(8, round(side / aspect**0.5)))
    caption = drawing(canvas, rng)
    clutter(canvas, rng, rng.choice((0, 0, 1, 2, 3)))
    return Scene(canvas.photograph(rng), kind, caption)
