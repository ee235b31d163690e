"""MISC: one thing on a table, on the ground or before a wall."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from rpbert.synthetic.drawing.backgrounds import WOODS, backdrop, wall
from rpbert.synthetic.drawing.canvas import (
    Canvas,
    Colour,
    Pen,
    arc,
    darker,
    described,
    lighter,
    mix,
    pick_colour,
    varied,
)

# Draws a thing that stands on the line y = 1, within -1 … 1, in a main and a second colour.
Thing: TypeAlias = Callable[[Pen, random.Random, Colour, Colour], None]


def thing(canvas: Canvas, rng: random.Random) -> str:
    """A mug, a phone, a car, a ball, a trophy, a book, a guitar, a camera, a gift or a shoe."""
    table = rng.random() < 0.8
    place = wall(canvas, rng) if table else backdrop(canvas, rng)
    top = canvas.height * rng.uniform(0.62, 0.78)
    ground = varied(rng, rng.choice(WOODS))
    if table:
        wood = rng.random() < 0.6
        if not wood:
            _, colour = pick_colour(rng)
            ground = mix(colour, (220, 220, 220), 0.3)
        canvas.gradient(ground, darker(ground, 0.2), top)
        canvas.pen.box(0, top, canvas.width, top + 0.018, lighter(ground, 0.25))
        for _ in range(4 if wood else 0):
            y = rng.uniform(top + 0.03, canvas.height)
            canvas.pen.stroke([(0, y), (canvas.width, y)], 0.006, darker(ground, 0.15))
        place = f"on a {'wooden ' if wood else ''}table {place}"
    kind = rng.choice(tuple(THINGS))
    scale = rng.uniform(0.3, 0.4)
    x = rng.uniform(scale, canvas.width - scale)
    foot = min(canvas.height - 0.03, max(top + rng.uniform(0.04, 0.16), 2 * scale + 0.04))
    name, colour = pick_colour(rng, canvas.colour_at(x, foot - 1.2 * scale))
    _, second = pick_colour(rng, colour)
    pen = canvas.pen.at(x, foot - scale, scale, mirror=rng.random() < 0.5)
    pen.ellipse(0.05, 1, 0.95, 0.1, darker(ground, 0.4))
    THINGS[kind](pen, rng, colour, second)
    return f"{described(name)} {kind} {place}"


def _mug(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen.stroke(arc(0.55, 0.15, 0.36, 0.4, -100, 100), 0.15, darker(first, 0.15))
    pen.box(-0.65, -0.65, 0.6, 1, first, 0.14)
    pen.box(-0.65, -0.65, 0.6, 0.4, first)
    pen.box(0.38, -0.6, 0.6, 0.9, darker(first, 0.12), 0.08)
    pen.ellipse(-0.025, -0.65, 0.625, 0.17, lighter(first, 0.35))
    pen.ellipse(-0.025, -0.64, 0.54, 0.13, (92, 58, 40))
    if rng.random() < 0.6:
        pen.box(-0.65, 0.05, 0.6, 0.3, second)
    for x in (-0.25, 0.1):
        steam = [(x, -0.85), (x + 0.08, -1.0), (x - 0.05, -1.15), (x + 0.04, -1.3)]
        pen.stroke(steam, 0.04, (226, 226, 226))


def _phone(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen = pen.at(0, 0, 1, rng.uniform(-10, 10))
    pen.box(-0.55, -1, 0.55, 1, darker(first, 0.25), 0.16)
    pen.box(-0.51, -0.96, 0.51, 0.96, first, 0.14)
    pen.box(-0.46, -0.84, 0.46, 0.8, (30, 34, 48), 0.05)
    pen.box(-0.46, -0.84, 0.46, -0.3, mix(second, (30, 34, 48), 0.25), 0.05)
    for row in range(3):
        for column in range(3):
            x, y = -0.3 + 0.3 * column, -0.1 + 0.32 * row
            _, colour = pick_colour(rng, (30, 34, 48))
            pen.box(x - 0.1, y - 0.1, x + 0.1, y + 0.1, colour, 0.04)
    pen.box(-0.12, -0.91, 0.12, -0.88, (20, 20, 24))
    pen.ellipse(0, 0.88, 0.06, 0.06, (20, 20, 24))


def _car(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    roof = [(-0.62, 0.2), (-0.4, -0.3), (0.3, -0.3), (0.68, 0.2)]
    pen.polygon(roof, first)
    glass = (184, 214, 230)
    pen.polygon([(-0.5, 0.18), (-0.34, -0.2), (-0.06, -0.2), (-0.06, 0.18)], glass)
    pen.polygon([(0.02, 0.18), (0.02, -0.2), (0.26, -0.2), (0.53, 0.18)], glass)
    pen.box(-1.05, 0.15, 1.1, 0.75, first, 0.18)
    pen.box(-1.05, 0.5, 1.1, 0.75, darker(first, 0.2), 0.1)
    if rng.random() < 0.4:
        pen.box(-1.05, 0.36, 1.1, 0.44, second)
    pen.box(0.95, 0.3, 1.1, 0.42, (250, 236, 170), 0.04)
    pen.box(-1.06, 0.3, -0.96, 0.42, (200, 50, 50), 0.04)
    pen.box(0.08, 0.28, 0.24, 0.32, darker(first, 0.5))
    for x in (-0.58, 0.62):
        pen.ellipse(x, 0.74, 0.28, 0.28, (36, 36, 40))
        pen.ellipse(x, 0.74, 0.14, 0.14, (190, 194, 198))


def _ball(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen = pen.at(0, 0.15, 0.85, rng.uniform(-40, 40))
    pen.ellipse(0, 0, 1, 1, first)
    kind = rng.choice(("patches", "seams", "stripes"))
    if kind == "patches":
        pen.polygon(arc(0, 0, 0.34, 0.34, -90, 270, 5), second)
        for x, y in arc(0, 0, 0.8, 0.8, -54, 306, 5)[:-1]:
            pen.stroke([(x * 0.35, y * 0.35), (x, y)], 0.04, darker(second))
            pen.ellipse(x, y, 0.19, 0.19, second)
    elif kind == "seams":
        for points in (arc(-1.1, 0, 0.8, 0.9, -55, 55), arc(1.1, 0, 0.8, 0.9, 125, 235)):
            pen.stroke(points, 0.06, darker(first, 0.55))
        pen.stroke([(0, -0.98), (0, 0.98)], 0.06, darker(first, 0.55))
        pen.stroke([(-0.98, 0), (0.98, 0)], 0.06, darker(first, 0.55))
    else:
        pen.ellipse(0, 0, 0.62, 1, second)
        pen.ellipse(0, 0, 0.24, 1, first)
    pen.ellipse(-0.4, -0.5, 0.2, 0.14, lighter(first, 0.6))


def _trophy(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(arc(0.55 * side, -0.5, 0.3, 0.32, 0, 360), 0.1, darker(first, 0.15))
    pen.polygon([(-0.6, -0.95), (0.6, -0.95), (0.42, -0.1), (-0.42, -0.1)], first)
    pen.ellipse(0, -0.12, 0.42, 0.32, first, 0, 180)
    pen.ellipse(0, -0.95, 0.6, 0.11, lighter(first, 0.35))
    pen.polygon([(-0.42, -0.8), (-0.26, -0.8), (-0.2, -0.1), (-0.28, -0.1)], lighter(first, 0.4))
    pen.box(-0.1, 0.1, 0.1, 0.55, darker(first, 0.2))
    pen.polygon([(-0.14, 0.45), (0.14, 0.45), (0.36, 0.65), (-0.36, 0.65)], first)
    pen.box(-0.52, 0.63, 0.52, 1, darker(second, 0.4), 0.04)
    pen.box(-0.25, 0.73, 0.25, 0.9, (226, 204, 140))


def _book(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen = pen.at(0, 0.05, 0.95, rng.uniform(-8, 8))
    pen.box(-0.62, -0.92, 0.74, 1, (240, 234, 216), 0.03)
    for k in range(4):
        pen.stroke([(0.66 + 0.02 * k, -0.88), (0.66 + 0.02 * k, 0.96)], 0.008, (196, 188, 168))
    pen.box(-0.72, -1, 0.64, 0.94, first, 0.04)
    pen.box(-0.72, -1, -0.5, 0.94, darker(first, 0.3), 0.04)
    pen.box(-0.34, -0.72, 0.48, -0.66, lighter(first, 0.7))
    pen.box(-0.24, -0.54, 0.38, -0.5, lighter(first, 0.7))
    if rng.random() < 0.5:
        pen.ellipse(0.07, 0.15, 0.3, 0.3, second)
    else:
        pen.polygon([(-0.3, 0.45), (0.07, -0.2), (0.44, 0.45)], second)
    pen.polygon([(0.3, 0.9), (0.3, 1.15), (0.37, 1.08), (0.44, 1.15), (0.44, 0.9)], (200, 60, 60))


def _guitar(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen = pen.at(0, 0, 1.1, rng.uniform(12, 35))
    pen.box(-0.09, -1.05, 0.09, 0.2, (98, 66, 46))
    pen.polygon([(-0.13, -1.0), (-0.17, -1.35), (0.17, -1.35), (0.13, -1.0)], darker(first, 0.4))
    for y in (-1.27, -1.1):
        for side in (-1, 1):
            pen.ellipse(0.2 * side, y, 0.05, 0.04, (226, 222, 210))
    for colour, grow in ((darker(first, 0.4), 0.05), (first, 0.0)):
        pen.ellipse(0, 0.1, 0.4 + grow, 0.36 + grow, colour)
        pen.ellipse(0, 0.58, 0.54 + grow, 0.46 + grow, colour)
    pen.ellipse(0, 0.24, 0.19, 0.19, darker(second, 0.4))
    pen.ellipse(0, 0.24, 0.15, 0.15, (34, 28, 26))
    pen.box(-0.24, 0.66, 0.24, 0.74, (60, 40, 30))
    for x in (-0.05, 0, 0.05):
        pen.stroke([(x, -1.2), (x, 0.7)], 0.012, (236, 232, 222))


def _camera(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    pen.box(-0.3, -0.72, 0.35, -0.3, darker(first, 0.15), 0.1)
    pen.box(-0.85, -0.58, -0.6, -0.4, (60, 60, 66), 0.05)
    pen.box(-1, -0.48, 1, 1, first, 0.16)
    pen.box(-1, -0.1, 1, 0.72, darker(first, 0.45) if rng.random() < 0.5 else second)
    for radius, colour in ((0.62, (210, 212, 214)), (0.54, (40, 42, 48)), (0.36, (70, 84, 120))):
        pen.ellipse(0, 0.3, radius, radius, colour)
    pen.ellipse(0, 0.3, 0.2, 0.2, (24, 26, 36))
    pen.ellipse(-0.14, 0.14, 0.1, 0.08, (214, 226, 240))
    pen.box(0.6, -0.36, 0.88, -0.18, (250, 246, 220), 0.04)


def _gift(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    for side in (-1, 1):
        pen.stroke(arc(0.26 * side, -0.62, 0.25, 0.19, 0, 360), 0.1, darker(second, 0.1))
    pen.box(-0.75, -0.25, 0.75, 1, first)
    pen.box(-0.75, -0.25, 0.75, -0.08, darker(first, 0.25))
    pen.box(-0.85, -0.48, 0.85, -0.16, lighter(first, 0.12), 0.03)
    pen.box(-0.14, -0.48, 0.14, 1, second)
    if rng.random() < 0.5:
        pen.box(-0.75, 0.32, 0.75, 0.52, second)
    pen.ellipse(0, -0.52, 0.13, 0.11, darker(second, 0.2))


def _shoe(pen: Pen, rng: random.Random, first: Colour, second: Colour) -> None:
    heel = [(-0.95, 0.75), (-0.98, -0.1), (-0.75, -0.28), (-0.3, -0.2), (-0.1, 0.05)]
    toe = [(0.35, 0.25), (0.85, 0.4), (1.02, 0.58), (1.02, 0.78)]
    pen.polygon([*heel, *toe], first)
    pen.ellipse(-0.56, -0.2, 0.3, 0.1, darker(first, 0.5))
    pen.polygon([(-0.95, 0.75), (-0.97, 0.2), (-0.6, 0.3), (-0.5, 0.75)], darker(first, 0.2))
    pen.ellipse(0.72, 0.76, 0.34, 0.3, lighter(first, 0.25), 180, 360)
    pen.box(-1, 0.72, 1.08, 0.98, (244, 244, 240), 0.1)
    pen.box(-1, 0.88, 1.08, 1, second, 0.05)
    for k in range(4):
        x, y = -0.22 + 0.15 * k, 0.02 + 0.09 * k
        pen.stroke([(x - 0.08, y + 0.12), (x + 0.1, y - 0.02)], 0.05, (250, 250, 246))
    if rng.random() < 0.7:
        pen.polygon([(-0.4, 0.6), (0.1, 0.3), (0.2, 0.38), (-0.2, 0.62)], second)


THINGS: dict[str, Thing] = {
    "mug": _mug,
    "phone": _phone,
    "car": _car,
    "ball": _ball,
    "trophy": _trophy,
    "book": _book,
    "guitar": _guitar,
    "camera": _camera,
    "gift box": _gift,
    "shoe": _shoe,
}
