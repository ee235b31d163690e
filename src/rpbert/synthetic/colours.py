"""Named colours, palettes and skies, and their mixtures and neighbours."""

from __future__ import annotations

import json
import math
import random
from importlib.resources import files
from typing import Any, TypeAlias

Colour: TypeAlias = tuple[int, int, int]
DATA: Any = json.loads(files("rpbert.synthetic").joinpath("drawings.json").read_text("utf-8"))


def rgb(text: str) -> Colour:
    """The colour written as ``#rrggbb``."""
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


COLOURS = {name: rgb(text) for name, text in DATA["colours"].items()}
PALETTES = {name: [rgb(text) for text in texts] for name, texts in DATA["palettes"].items()}
SKIES = {name: (rgb(top), rgb(bottom)) for name, (top, bottom) in DATA["skies"].items()}


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """The colour with `share` of black mixed in."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """The colour with `share` of white mixed in."""
    return mix(colour, (255, 255, 255), share)


def varied(rng: random.Random, colour: Colour, spread: int = 14) -> Colour:
    """A neighbour of the colour, each channel moved by at most `spread`."""
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in colour)
    return red, green, blue


def tone(rng: random.Random, palette: str, spread: int = 14) -> Colour:
    """A neighbour of one of the palette's colours."""
    colours = PALETTES[palette]
    return varied(rng, rng.choice(colours) if len(colours) > 1 else colours[0], spread)


def pick(rng: random.Random, *avoid: Colour) -> tuple[str, Colour]:
    """A named colour that stands out against the colours to avoid, slightly varied."""
    names = [n for n, c in COLOURS.items() if all(math.dist(c, other) > 95 for other in avoid)]
    name = rng.choice(names or ["white"])
    return name, varied(rng, COLOURS[name])


def sky(rng: random.Random) -> tuple[str, Colour, Colour]:
    """The words for a sky, and its colours at the top and at the horizon."""
    mood = rng.choice(tuple(SKIES))
    top, bottom = (varied(rng, colour) for colour in SKIES[mood])
    return mood, top, bottom
