"""Colours, pens and a camera for drawn pictures: shapes, noise and blur.
Lengths are fractions of the picture's shorter side, so a drawing looks the same at any size. The
origin is the top left corner, y grows downwards. ``drawings.json`` lists the shapes of each
drawing: a method of `Pen` with its arguments, or a step of `sketch`."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, int, int]
DATA: Any = json.loads(files("rpbert.synthetic").joinpath("drawings.json").read_text("utf-8"))
DRAWINGS: dict[str, list[list[Any]]] = DATA["drawings"]
GLYPHS: list[list[list[Any]]] = DATA["glyphs"]
SUPERSAMPLING = 2  # drawn twice as large and averaged: smooth edges


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


def described(name: str) -> str:
    """The noun phrase with its indefinite article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True, slots=True)
class Pen:
    """Draws filled shapes in its frame: (x, y) is pixel (a x + b y + c, d x + e y + f)."""

    surface: ImageDraw.ImageDraw
    frame: tuple[float, float, float, float, float, float]  # a to f

    def at(
        self, x: float, y: float, scale: float = 1.0, turn: float = 0.0, mirror: bool = False
    ) -> Pen:
        """A pen whose origin is (x, y) of this one, with `turn` in degrees clockwise."""
        a, b, c, d, e, f = self.frame
        cos, sin = math.cos(math.radians(turn)) * scale, math.sin(math.radians(turn)) * scale
        side = -1 if mirror else 1
        frame = (
            (a * cos + b * sin) * side,
            b * cos - a * sin,
            a * x + b * y + c,
            (d * cos + e * sin) * side,
            e * cos - d * sin,
            d * x + e * y + f,
        )
        return Pen(self.surface, frame)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fills the polygon."""
        self.surface.polygon(self._pixels(points), fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, c: Colour, *span: float) -> None:
        """Fills an ellipse with colour `c`, or its segment between two angles as in `arc`."""
        start, end = span or (0.0, 360.0)
        self.polygon(arc(x, y, rx, ry, start, end), c)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, corner: float = 0.0
    ) -> None:
        """Fills a rectangle whose corners are rounded with radius `corner`."""
        if corner <= 0:
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
            return
        left, top, right, bottom = x0 + corner, y0 + corner, x1 - corner, y1 - corner
        centres = ((left, top, 180), (right, top, 270), (right, bottom, 0), (left, bottom, 90))
        outline = [p for x, y, a in centres for p in arc(x, y, corner, corner, a, a + 90, 6)]
        self.polygon(outline, colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draws a line through the points with round ends."""
        a, _, _, d, _, _ = self.frame
        thickness = max(1, round(width * math.hypot(a, d)))
        self.surface.line(self._pixels(points), fill=colour, width=thickness, joint="curve")
        if thickness > 3:
            for x, y in (points[0], points[-1]):
                self.ellipse(x, y, width / 2, width / 2, colour)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        a, b, c, d, e, f = self.frame
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 32
) -> list[Point]:
    """Points along an ellipse, angles in degrees clockwise from 3 o'clock."""
    turns = (math.radians(start + (end - start) * k / steps) for k in range(steps + 1))
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def letters(pen: Pen, rng: random.Random, wide: float, high: float, colour: Colour) -> None:
    """Marks of no alphabet centred on the origin: a sign that nobody can read."""
    number = rng.randint(3, 6)
    pitch = min(wide / number, high * 1.1)
    width, weight = pitch * 0.66, min(high, pitch) * rng.uniform(0.2, 0.28)
    for k in range(number):
        left = (k - number / 2) * pitch + (pitch - width) / 2
        for strokes in rng.choice(GLYPHS):
            points = [(left + x * width, (y - 0.5) * high) for x, y in _value(strokes, {})]
            pen.stroke(points, weight, colour)


def sketch(pen: Pen, drawing: str, rng: random.Random, **palette: Colour) -> None:
    """Draws what ``drawings.json`` lists under the name; `palette` holds the colours it names."""
    palette |= {"dark": (0, 0, 0), "light": (255, 255, 255)}
    _follow(pen, DRAWINGS[drawing], rng, palette)


def _follow(
    pen: Pen, steps: Sequence[Sequence[Any]], rng: random.Random, palette: dict[str, Colour]
) -> None:
    for kind, *given in steps:
        match kind:
            case "frame":  # of all that follows: x, y, scale, and the range of the turn
                x, y, scale, *turn = given
                pen = pen.at(x, y, scale, rng.uniform(*turn) if turn else 0.0)
            case "maybe":  # a chance, steps, and the steps otherwise
                chance, steps, *otherwise = given
                for branch in [steps] if rng.random() < chance else otherwise:
                    _follow(pen, branch, rng, palette)
            case "either":
                _follow(pen, rng.choice(given), rng, palette)
            case "drawing":
                _follow(pen, DRAWINGS[given[0]], rng, palette)
            case "set":
                palette[given[0]] = _value(given[1], palette)
            case "pick":  # a colour that stands out against others
                name, *avoid = given
                _, palette[name] = pick(rng, *(_value(other, palette) for other in avoid))
            case "letters":
                letters(pen, rng, *(_value(value, palette) for value in given))
            case _:
                getattr(pen, kind)(*(_value(value, palette) for value in given))


def _value(text: Any, palette: dict[str, Colour]) -> Any:
    """An argument as it is written: a number, points, ``["arc", …]``, a colour, or its mixture."""
    match text:
        case ["arc", *numbers]:
            return arc(*numbers)
        case str() if text.startswith("#"):
            return rgb(text)
        case str() if " " in text:  # colour, other, share: as `mix`
            first, other, share = text.split()
            return mix(palette[first], _value(other, palette), float(share))
        case str():
            return palette[text]
    return text


class Canvas:
    """An empty picture, its width and height in units of the shorter side, and a pen for it."""

    def __init__(self, pixels_wide: int, pixels_high: int) -> None:
        from PIL import Image, ImageDraw

        wide, high = pixels_wide * SUPERSAMPLING, pixels_high * SUPERSAMPLING
        self._unit = min(wide, high)
        self._image = Image.new("RGB", (wide, high))
        self.width, self.height = wide / self._unit, high / self._unit
        self.pen = Pen(ImageDraw.Draw(self._image), (self._unit, 0, 0, 0, self._unit, 0))

    def gradient(self, top: Colour, bottom: Colour, y0: float = 0.0, y1: float = math.inf) -> None:
        """Fills the full width between two heights, `top` blending into `bottom`."""
        from PIL import Image

        first, last = round(y0 * self._unit), round(min(y1, self.height) * self._unit)
        if last <= first:
            return
        column = Image.new("RGB", (1, 64))
        column.putdata([mix(top, bottom, k / 63) for k in range(64)])
        column = column.resize((1, last - first), Image.Resampling.BILINEAR)
        band = column.resize((self._image.width, last - first), Image.Resampling.NEAREST)
        self._image.paste(band, (0, first))

    def colour_at(self, x: float, y: float) -> Colour:
        """What is drawn at a point inside the picture."""
        pixel: Any = self._image.getpixel((int(x * self._unit), int(y * self._unit)))
        return pixel[0], pixel[1], pixel[2]

    def photograph(self, rng: random.Random) -> Image.Image:
        """The picture as a camera might take it: light, cast, blur and noise vary."""
        import numpy as np
        from PIL import Image, ImageFilter

        photo = self._image.reduce(SUPERSAMPLING)
        if rng.random() < 0.35:
            photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
        contrast, light = rng.uniform(0.8, 1.12), rng.uniform(-26, 26)
        cast = np.array([rng.uniform(-8, 8) for _ in range(3)], dtype=np.float32)
        levels = (np.asarray(photo, dtype=np.float32) - 128) * contrast + 128 + light + cast
        grain = np.random.default_rng(rng.getrandbits(64)).random(levels.shape, dtype=np.float32)
        levels += rng.uniform(0, 28) * (grain - 0.5)
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
