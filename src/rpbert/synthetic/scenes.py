"""Drawn pictures that show what a name stands for: a person, a landscape, a logo or an object.
Within a scene everything varies: kind, number, colours, place, size, pose, background, clutter,
light, blur and noise. The colours alone say little of the type. A drawing function returns the
words for what it drew, so that captions are true by construction."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rpbert.synthetic.canvas import (
    DATA,
    Canvas,
    Colour,
    Pen,
    darker,
    described,
    letters,
    lighter,
    mix,
    pick,
    sketch,
    sky,
    tone,
)
from rpbert.synthetic.places import backdrop, clutter, landscape, wall

if TYPE_CHECKING:
    from PIL import Image

WHITE: Colour = (244, 243, 238)


class Scene(NamedTuple):
    """A drawn picture in RGB, its kind (that of `SCENES`, or ``nothing``), and what is drawn."""

    image: Image.Image
    kind: str
    caption: str


def draw(label: str | None, rng: random.Random, size: int = 224) -> Scene:
    """Draws a scene that shows an entity of the type, or for None a scene that shows none.
    It has about size × size pixels; its shape varies from 2:3 to 3:2."""
    kind, drawing = SCENES[label]
    aspect = rng.choice((1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)) * rng.uniform(0.95, 1.05)
    side = size * rng.uniform(0.9, 1.12)
    canvas = Canvas(max(8, round(side * aspect**0.5)), max(8, round(side / aspect**0.5)))
    caption = drawing(canvas, rng)
    clutter(canvas, rng, rng.choice((0, 0, 1, 2, 3)))
    return Scene(canvas.photograph(rng), kind, caption)


def _people(canvas: Canvas, rng: random.Random) -> str:
    """One to three people side by side, all whole or all head and shoulders."""
    place = backdrop(canvas, rng)
    number = rng.choices((1, 2, 3), (6, 3, 2))[0]
    close = rng.random() < 0.55
    room = canvas.width / number
    names = []
    for k in rng.sample(range(number), number):
        x = room * (k + 0.5 + rng.uniform(-0.12, 0.12))
        mirror = rng.random() < 0.5
        if close:
            scale = min(rng.uniform(0.5, 0.66), room * 0.95)
            y, lean = canvas.height - scale * rng.uniform(0.75, 0.9), rng.uniform(-4, 4)
        else:
            scale = min(rng.uniform(0.4, 0.47) * canvas.height, room * 1.1)
            y, lean = canvas.height * rng.uniform(0.94, 0.99) - scale, rng.uniform(-3, 3)
        skin, hair = tone(rng, "skin", 8), tone(rng, "hair", 8)
        name, shirt = pick(rng, skin)
        pen = canvas.pen.at(x, y, scale, lean, mirror)
        if not close:
            _legs(pen, rng, skin, shirt)
        sketch(pen, "portrait" if close else "upper body", rng, skin=skin, hair=hair, shirt=shirt)
        names.append(name)
    if number == 1:
        return f"a smiling person in {described(names[0])} shirt {place}"
    return f"{('two', 'three')[number - 2]} people {place}, one in {described(names[0])} shirt"


def _legs(pen: Pen, rng: random.Random, skin: Colour, shirt: Colour) -> None:
    """From the hips, at the origin, to the feet at (0, 1)."""
    _, trousers = pick(rng, skin, shirt)
    stride = rng.uniform(0.05, 0.22)
    for side in (-1, 1):
        pen.stroke([(0.1 * side, 0.1), (0.1 * side + stride * side, 0.92)], 0.16, trousers)
        pen.ellipse(0.14 * side + stride * side, 0.95, 0.12, 0.055, (52, 46, 48))


def _object(canvas: Canvas, rng: random.Random) -> str:
    """One thing on a table, on the ground or before a wall."""
    table = rng.random() < 0.8
    place = wall(canvas, rng) if table else backdrop(canvas, rng)
    top = canvas.height * rng.uniform(0.62, 0.78)
    ground = tone(rng, "wood")
    if table:
        wood = rng.random() < 0.6
        if not wood:
            ground = mix(pick(rng)[1], (220, 220, 220), 0.3)
        canvas.gradient(ground, darker(ground, 0.2), top)
        canvas.pen.box(0, top, canvas.width, top + 0.018, lighter(ground, 0.25))
        for _ in range(4 if wood else 0):
            y = rng.uniform(top + 0.03, canvas.height)
            canvas.pen.stroke([(0, y), (canvas.width, y)], 0.006, darker(ground, 0.15))
        place = f"on a {'wooden ' if wood else ''}table {place}"
    kind = rng.choice(DATA["objects"])
    scale = rng.uniform(0.3, 0.4)
    x = rng.uniform(scale, canvas.width - scale)
    foot = min(canvas.height - 0.03, max(top + rng.uniform(0.04, 0.16), 2 * scale + 0.04))
    name, colour = pick(rng, canvas.colour_at(x, foot - 1.2 * scale))
    _, second = pick(rng, colour)
    pen = canvas.pen.at(x, foot - scale, scale, mirror=rng.random() < 0.5)
    pen.ellipse(0.05, 1, 0.95, 0.1, darker(ground, 0.4))
    sketch(pen, kind, rng, first=colour, second=second)
    return f"{described(name)} {kind} {place}"


def _emblem(pen: Pen, rng: random.Random, ground: Colour) -> str:
    """A mark of radius 1 round the origin; returns its main colour and shape."""
    name, first = pick(rng, ground)
    _, second = pick(rng, first)
    emblem = rng.choice(DATA["emblems"])
    if emblem == "logo of bars":
        number = rng.choice((3, 4))
        pitch = 1.8 / number
        for k in range(number):
            left, high = -0.9 + k * pitch, rng.uniform(0.6, 1.8)
            pen.box(left, 0.9 - high, left + pitch * 0.72, 0.9, second if k % 2 else first, 0.08)
    elif emblem == "logo of tiles":
        for x, y in ((-0.45, -0.45), (-0.45, 0.45), (0.45, -0.45), (0.45, 0.45)):
            colour = rng.choice((first, second, first))
            tile = pen.at(x, y, 0.41, rng.choice((0, 90, 180, 270)))
            sketch(tile, rng.choice(("square", "dot", "quarter")), rng, colour=colour)
    else:
        sketch(pen, emblem, rng, first=first, second=second)
    return described(f"{name} {emblem}")


def _emblem_and_word(pen: Pen, rng: random.Random, wide: float, high: float, ground: Colour) -> str:
    """An emblem and a word beside or beneath it, within a box centred on the origin."""
    _, ink = pick(rng, ground)
    if wide > 1.3 * high:
        size = high * 0.42
        name = _emblem(pen.at(-wide / 2 + size * 1.15, 0, size), rng, ground)
        rest = wide - size * 2.5
        letters(pen.at(wide / 2 - rest / 2, 0), rng, rest, min(high * 0.45, rest * 0.36), ink)
    else:
        size = min(wide * 0.42, high * 0.31)
        name = _emblem(pen.at(0, -high / 2 + size * 1.1, size), rng, ground)
        letters(pen.at(0, high * 0.36), rng, wide, high * 0.22, ink)
    return name


def _board(rng: random.Random, white: float) -> tuple[str, Colour]:
    """What an emblem is printed on: white with that chance, or any colour."""
    return ("white", tone(rng, "paper", 8)) if rng.random() < white else pick(rng)


def _emblem_on_paper(canvas: Canvas, rng: random.Random) -> str:
    name, paper = _board(rng, 0.7)
    canvas.gradient(paper, darker(paper, rng.uniform(0, 0.15)))
    wide, high = canvas.width * rng.uniform(0.7, 0.92), canvas.height * rng.uniform(0.7, 0.92)
    x = canvas.width / 2 + rng.uniform(-0.5, 0.5) * (canvas.width - wide)
    y = canvas.height / 2 + rng.uniform(-0.5, 0.5) * (canvas.height - high)
    pen = canvas.pen.at(x, y, 1, rng.uniform(-7, 7))
    emblem = _emblem_and_word(pen, rng, wide, high, paper)
    return f"{emblem} with letters on {described(name)} ground"


def _plaque(canvas: Canvas, rng: random.Random) -> str:
    place = wall(canvas, rng)
    name, plate = _board(rng, 0.7)
    wide, high = canvas.width * rng.uniform(0.78, 0.92), canvas.height * rng.uniform(0.66, 0.84)
    x, y = canvas.width * rng.uniform(0.47, 0.53), canvas.height * rng.uniform(0.46, 0.52)
    pen = canvas.pen.at(x, y, 1, rng.uniform(-5, 5))
    right, foot, edge = wide / 2, high / 2, 0.025
    pen.box(-right, 0.02 - foot, right, foot + 0.03, (60, 60, 66), 0.05)
    pen.box(-right, -foot, right, foot, darker(plate, 0.25), 0.05)
    pen.box(edge - right, edge - foot, right - edge, foot - edge, plate, 0.04)
    emblem = _emblem_and_word(pen, rng, wide * 0.85, high * 0.85, plate)
    return f"{described(name)} sign with {emblem} {place}"


def _shop_front(canvas: Canvas, rng: random.Random) -> str:
    stone = tone(rng, "front")
    canvas.gradient(stone, darker(stone, 0.2))
    middle, wide, top = canvas.width / 2, canvas.width * rng.uniform(0.76, 0.92), 0.06
    left, right, ground = middle - wide / 2, middle + wide / 2, canvas.height * 0.9
    name, board = pick(rng, stone)
    _, ink = pick(rng, board)
    pen, high = canvas.pen, canvas.height * rng.uniform(0.22, 0.3)
    pen.box(left, top, right, top + high, darker(board, 0.3), 0.02)
    pen.box(left + 0.015, top + 0.015, right - 0.015, top + high - 0.015, board, 0.02)
    _emblem(pen.at(left + high * 0.55, top + high / 2, high * 0.34), rng, board)
    word = pen.at(middle + high * 0.4, top + high / 2)
    letters(word, rng, wide - high * 1.4, high * 0.5, ink)
    _, cloth = pick(rng, stone)
    roof, strips = top + high, rng.randint(6, 10)
    glass = tone(rng, "glass")
    pen.box(left, roof, right, ground, darker(stone, 0.45))
    door = middle + rng.choice((-1, 0, 1)) * wide * 0.3
    for k in (-1, 0, 1):
        x = middle + k * wide / 3
        pen.box(x - wide * 0.15, roof, x + wide * 0.15, ground - 0.08, glass)
    pen.box(door - wide * 0.1, roof + 0.02, door + wide * 0.1, ground, darker(board, 0.35))
    pen.box(door - wide * 0.07, roof + 0.12, door + wide * 0.07, ground - 0.1, lighter(glass, 0.2))
    for k in range(strips):
        x, colour = left + wide * k / strips, WHITE if k % 2 else cloth
        pen.box(x, roof, x + wide / strips, roof + 0.1, colour)
        pen.ellipse(x + wide / strips / 2, roof + 0.1, wide / strips / 2, 0.03, colour, 0, 180)
    pen.box(0, ground, canvas.width, canvas.height, (128, 128, 130))
    return f"a shop front with {described(name)} sign"


def _billboard(canvas: Canvas, rng: random.Random) -> str:
    mood, top, bottom = sky(rng)
    canvas.gradient(top, bottom)
    name, plate = _board(rng, 0.5)
    wide, high = canvas.width * rng.uniform(0.7, 0.88), canvas.height * rng.uniform(0.42, 0.58)
    pen = canvas.pen.at(canvas.width * rng.uniform(0.46, 0.54), canvas.height * 0.4)
    for side in (-1, 1):
        pen.box(0.3 * wide * side - 0.02, 0, 0.3 * wide * side + 0.02, 2, (84, 84, 92))
    pen.box(-wide / 2 - 0.02, -high / 2 - 0.02, wide / 2 + 0.02, high / 2 + 0.02, (70, 70, 78))
    pen.box(-wide / 2, -high / 2, wide / 2, high / 2, plate)
    emblem = _emblem_and_word(pen, rng, wide * 0.9, high * 0.85, plate)
    return f"{described(name)} billboard with {emblem} {mood}"


def _logo(canvas: Canvas, rng: random.Random) -> str:
    drawing = rng.choices((_emblem_on_paper, _plaque, _shop_front, _billboard), (4, 2, 3, 3))[0]
    return drawing(canvas, rng)


SCENES: dict[str | None, tuple[str, Callable[[Canvas, random.Random], str]]] = {
    "PER": ("person", _people),
    "LOC": ("landscape", landscape),
    "ORG": ("logo", _logo),
    "MISC": ("object", _object),
    None: ("nothing", lambda canvas, rng: f"nothing {backdrop(canvas, rng)}"),
}
