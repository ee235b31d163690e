"""ORG: an emblem with a word mark, a shop front, or a sign."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from rpbert.synthetic.drawing.backgrounds import SKIES, wall
from rpbert.synthetic.drawing.canvas import (
    Canvas,
    Colour,
    Pen,
    Point,
    arc,
    darker,
    described,
    lighter,
    mix,
    pick_colour,
    varied,
)

PAPER: Colour = (244, 243, 238)
# Marks of no alphabet, as strokes in a box 1 wide and 1 high: a sign that nobody can read.
GLYPHS: tuple[tuple[tuple[Point, ...], ...], ...] = (
    (((0, 1), (0.5, 0), (1, 1)), ((0.5, 0.5), (0.5, 1))),
    (((0, 0), (1, 0), (1, 1), (0, 1)), ((0.2, 0.5), (1, 0.5))),
    (((0, 0), (0, 1)), ((0, 0.5), (1, 0.5)), ((0.6, 0.1), (0.6, 0.9))),
    (((1, 0), (1, 1), (0, 1)), ((0.1, 0.1), (0.4, 0.5))),
    (((0, 0), (0, 0.6), (1, 0.6), (1, 0)), ((0.5, 0.2), (0.5, 1))),
    (((0, 1), (0, 0.2), (1, 0.8), (1, 0)),),
    (((0, 1), (1, 1)), ((0.5, 0), (0.5, 1)), ((0.2, 0.3), (0.8, 0.3))),
    (((0, 0), (1, 0), (0.5, 0.5), (0.5, 1)), ((0, 1), (1, 1))),
    ((*arc(0.5, 0.3, 0.4, 0.3, 0, 360, 16),), ((0.5, 0.6), (0.5, 1))),
    ((*arc(0.5, 0.5, 0.5, 0.5, 140, 400, 14),), ((0.1, 1), (0.9, 1))),
    ((*arc(0.5, 0.5, 0.5, 0.5, 220, 500, 14),), ((0.2, 0.5), (0.6, 0.5))),
    (((0, 0), (1, 0.3), (0, 0.6), (1, 1)),),
)


def logo(canvas: Canvas, rng: random.Random) -> str:
    """An emblem on paper or on a wall, a shop front, or a sign on posts."""
    drawing = rng.choices((_emblem_on_paper, _plaque, _shop_front, _billboard), (4, 2, 3, 3))[0]
    return drawing(canvas, rng)


def _word(pen: Pen, rng: random.Random, wide: float, high: float, colour: Colour) -> None:
    """Letter-like marks centred on the origin."""
    number = rng.randint(3, 6)
    pitch = min(wide / number, high * 1.1)
    width, weight = pitch * 0.66, min(high, pitch) * rng.uniform(0.2, 0.28)
    for k in range(number):
        left = (k - number / 2) * pitch + (pitch - width) / 2
        for strokes in rng.choice(GLYPHS):
            points = [(left + x * width, (y - 0.5) * high) for x, y in strokes]
            pen.stroke(points, weight, colour)


def _emblem(pen: Pen, rng: random.Random, ground: Colour) -> str:
    """A mark of radius 1 round the origin; returns its main colour and shape."""
    name, first = pick_colour(rng, ground)
    _, second = pick_colour(rng, first)
    marks: tuple[Callable[[Pen, random.Random, Colour, Colour], str], ...]
    marks = (_shield, _badge, _bars, _rings, _hexagon, _tiles)
    return described(f"{name} {rng.choice(marks)(pen, rng, first, second)}")


def _star(x: float, y: float, radius: float, points: int = 5) -> list[Point]:
    tips = []
    for k in range(2 * points):
        turn, reach = math.pi * k / points - math.pi / 2, radius * (0.45 if k % 2 else 1)
        tips.append((x + reach * math.cos(turn), y + reach * math.sin(turn)))
    return tips


def _charge(pen: Pen, rng: random.Random, colour: Colour) -> None:
    """What stands in the middle of a shield or a badge."""
    kind = rng.choice(("star", "letters", "chevrons", "letters"))
    if kind == "star":
        pen.polygon(_star(0, 0, 0.55, rng.choice((4, 5, 6, 8))), colour)
    elif kind == "letters":
        _word(pen.at(0, 0, 1.0), rng, 1.0, 0.55, colour)
    else:
        for y in (-0.3, 0.0, 0.3):
            pen.stroke([(-0.4, y + 0.2), (0, y - 0.1), (0.4, y + 0.2)], 0.14, colour)


def _shield(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    def outline(size: float) -> list[Point]:
        sides = [(0.85, -0.9), (0.85, 0.1), (0.6, 0.6), (0, 1.05), (-0.6, 0.6), (-0.85, 0.1)]
        return [(x * size, y * size) for x, y in [*sides, (-0.85, -0.9)]]

    pen.polygon(outline(1), darker(first))
    pen.polygon(outline(0.93), PAPER)
    pen.polygon(outline(0.86), first)
    if rng.random() < 0.5:
        pen.box(-0.73, -0.77, 0.73, -0.4, second)
    _charge(pen.at(0, 0.08, 0.9), rng, PAPER if rng.random() < 0.6 else second)
    return "shield"


def _badge(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    if rng.random() < 0.4:
        pen.polygon(_star(0, 0, 1.12, 24), first)
        pen.ellipse(0, 0, 0.9, 0.9, first)
    else:
        pen.ellipse(0, 0, 1, 1, first)
    pen.ellipse(0, 0, 0.82, 0.82, PAPER)
    pen.ellipse(0, 0, 0.75, 0.75, second)
    _charge(pen, rng, PAPER)
    return "badge"


def _bars(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    number = rng.choice((3, 4))
    pitch = 1.8 / number
    for k in range(number):
        left, high = -0.9 + k * pitch, rng.uniform(0.6, 1.8)
        pen.box(left, 0.9 - high, left + pitch * 0.72, 0.9, second if k % 2 else first, 0.08)
    return "logo of bars"


def _rings(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    for side, colour in ((-1, first), (1, second)):
        pen.stroke(arc(0.4 * side, 0.15, 0.52, 0.52, 0, 360), 0.17, colour)
    if rng.random() < 0.6:
        pen.stroke(arc(0, -0.45, 0.52, 0.52, 0, 360), 0.17, mix(first, second, 0.5))
    return "logo of rings"


def _hexagon(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    corners = arc(0, 0, 1, 1, -90, 270, 6)
    pen.polygon(corners, first)
    if rng.random() < 0.5:
        pen.polygon([corners[0], corners[1], (0, 0), corners[5]], lighter(first, 0.4))
        pen.polygon([corners[1], corners[2], corners[3], (0, 0)], darker(first))
    else:
        pen.polygon([(x * 0.84, y * 0.84) for x, y in corners], PAPER)
        pen.polygon([(x * 0.76, y * 0.76) for x, y in corners], second)
        _charge(pen.at(0, 0, 0.95), rng, PAPER)
    return "hexagon logo"


def _tiles(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> str:
    for x in (-0.45, 0.45):
        for y in (-0.45, 0.45):
            colour = rng.choice((first, second, first))
            tile = pen.at(x, y, 0.41, rng.choice((0, 90, 180, 270)))
            shape = rng.choice(("square", "disc", "quarter"))
            if shape == "square":
                tile.box(-1, -1, 1, 1, colour, 0.15)
            elif shape == "disc":
                tile.ellipse(0, 0, 1, 1, colour)
            else:
                tile.polygon([(-1, -1), *arc(-1, -1, 2, 2, 0, 90)], colour)
    return "logo of tiles"


def _mark_and_word(pen: Pen, rng: random.Random, wide: float, high: float, ground: Colour) -> str:
    """An emblem and a word beside or beneath it, within a box centred on the origin."""
    _, ink = pick_colour(rng, ground)
    if wide > 1.3 * high:
        size = high * 0.42
        name = _emblem(pen.at(-wide / 2 + size * 1.15, 0, size), rng, ground)
        rest = wide - size * 2.5
        _word(pen.at(wide / 2 - rest / 2, 0), rng, rest, min(high * 0.45, rest * 0.36), ink)
    else:
        size = min(wide * 0.42, high * 0.31)
        name = _emblem(pen.at(0, -high / 2 + size * 1.1, size), rng, ground)
        _word(pen.at(0, high * 0.36), rng, wide, high * 0.22, ink)
    return name


def _board(rng: random.Random, white: float) -> tuple[str, Colour]:
    """What an emblem is printed on: white with that chance, or any colour."""
    return ("white", varied(rng, PAPER, 8)) if rng.random() < white else pick_colour(rng)


def _emblem_on_paper(canvas: Canvas, rng: random.Random) -> str:
    colour_name, colour = _board(rng, 0.7)
    canvas.gradient(colour, darker(colour, rng.uniform(0, 0.15)))
    wide, high = canvas.width * rng.uniform(0.7, 0.92), canvas.height * rng.uniform(0.7, 0.92)
    x = canvas.width / 2 + rng.uniform(-0.5, 0.5) * (canvas.width - wide)
    y = canvas.height / 2 + rng.uniform(-0.5, 0.5) * (canvas.height - high)
    pen = canvas.pen.at(x, y, 1, rng.uniform(-7, 7))
    mark = _mark_and_word(pen, rng, wide, high, colour)
    return f"{mark} with letters on {described(colour_name)} ground"


def _plaque(canvas: Canvas, rng: random.Random) -> str:
    place = wall(canvas, rng)
    name, plate = _board(rng, 0.7)
    wide, high = canvas.width * rng.uniform(0.78, 0.92), canvas.height * rng.uniform(0.66, 0.84)
    x, y = canvas.width * rng.uniform(0.47, 0.53), canvas.height * rng.uniform(0.46, 0.52)
    pen = canvas.pen.at(x, y, 1, rng.uniform(-5, 5))
    edge = 0.025
    pen.box(-wide / 2, -high / 2 + 0.02, wide / 2, high / 2 + 0.03, (60, 60, 66), 0.05)
    pen.box(-wide / 2, -high / 2, wide / 2, high / 2, darker(plate, 0.25), 0.05)
    pen.box(edge - wide / 2, edge - high / 2, wide / 2 - edge, high / 2 - edge, plate, 0.04)
    mark = _mark_and_word(pen, rng, wide * 0.85, high * 0.85, plate)
    return f"{described(name)} sign with {mark} {place}"


def _shop_front(canvas: Canvas, rng: random.Random) -> str:
    stone = varied(
        rng, rng.choice(((200, 184, 164), (160, 170, 178), (176, 112, 92), (90, 96, 110)))
    )
    canvas.gradient(stone, darker(stone, 0.2))
    middle, wide, top = canvas.width / 2, canvas.width * rng.uniform(0.76, 0.92), 0.06
    left, right, ground = middle - wide / 2, middle + wide / 2, canvas.height * 0.9
    name, board = pick_colour(rng, stone)
    _, ink = pick_colour(rng, board)
    pen, high = canvas.pen, canvas.height * rng.uniform(0.22, 0.3)
    pen.box(left, top, right, top + high, darker(board, 0.3), 0.02)
    pen.box(left + 0.015, top + 0.015, right - 0.015, top + high - 0.015, board, 0.02)
    _emblem(pen.at(left + high * 0.55, top + high / 2, high * 0.34), rng, board)
    word = pen.at(middle + high * 0.4, top + high / 2)
    _word(word, rng, wide - high * 1.4, high * 0.5, ink)
    _, cloth = pick_colour(rng, stone)
    roof, strips = top + high, rng.randint(6, 10)
    glass = varied(rng, rng.choice(((150, 190, 206), (250, 222, 160))))
    pen.box(left, roof, right, ground, darker(stone, 0.45))
    door = middle + rng.choice((-1, 0, 1)) * wide * 0.3
    for k in (-1, 0, 1):
        x = middle + k * wide / 3
        pen.box(x - wide * 0.15, roof, x + wide * 0.15, ground - 0.08, glass)
    pen.box(door - wide * 0.1, roof + 0.02, door + wide * 0.1, ground, darker(board, 0.35))
    pen.box(door - wide * 0.07, roof + 0.12, door + wide * 0.07, ground - 0.1, lighter(glass, 0.2))
    for k in range(strips):
        x, colour = left + wide * k / strips, PAPER if k % 2 else cloth
        pen.box(x, roof, x + wide / strips, roof + 0.1, colour)
        pen.ellipse(x + wide / strips / 2, roof + 0.1, wide / strips / 2, 0.03, colour, 0, 180)
    pen.box(0, ground, canvas.width, canvas.height, (128, 128, 130))
    return f"a shop front with {described(name)} sign"


def _billboard(canvas: Canvas, rng: random.Random) -> str:
    mood = rng.choice(tuple(SKIES))
    top, bottom = (varied(rng, colour) for colour in SKIES[mood])
    canvas.gradient(top, bottom)
    name, plate = _board(rng, 0.5)
    wide, high = canvas.width * rng.uniform(0.7, 0.88), canvas.height * rng.uniform(0.42, 0.58)
    pen = canvas.pen.at(canvas.width * rng.uniform(0.46, 0.54), canvas.height * 0.4)
    for side in (-1, 1):
        pen.box(0.3 * wide * side - 0.02, 0, 0.3 * wide * side + 0.02, 2, (84, 84, 92))
    pen.box(-wide / 2 - 0.02, -high / 2 - 0.02, wide / 2 + 0.02, high / 2 + 0.02, (70, 70, 78))
    pen.box(-wide / 2, -high / 2, wide / 2, high / 2, plate)
    mark = _mark_and_word(pen, rng, wide * 0.9, high * 0.85, plate)
    return f"{described(name)} billboard with {mark} {mood}"
