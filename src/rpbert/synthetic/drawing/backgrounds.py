"""What stands behind people, logos and objects: walls, a park, a room; and small clutter."""

from __future__ import annotations

import math
import random

from rpbert.synthetic.drawing.canvas import (
    Canvas,
    Colour,
    Pen,
    darker,
    described,
    lighter,
    mix,
    pick_colour,
    varied,
)

SKIES: dict[str, tuple[Colour, Colour]] = {
    "under a blue sky": ((84, 154, 220), (198, 226, 244)),
    "under a grey sky": ((140, 150, 162), (206, 210, 214)),
    "at sunset": ((108, 84, 150), (250, 172, 96)),
    "at dawn": ((150, 170, 214), (250, 206, 196)),
    "at night": ((16, 20, 46), (52, 60, 104)),
}
WOODS: tuple[Colour, ...] = ((176, 128, 84), (132, 92, 62), (206, 170, 126))


def tree(pen: Pen, rng: random.Random, shade: float = 0.0) -> None:
    """A tree of height 1 that stands on the origin."""
    leaf = darker(varied(rng, rng.choice(((70, 128, 70), (96, 144, 66), (52, 104, 76)))), shade)
    pen.box(-0.06, -0.35, 0.06, 0.02, darker((110, 78, 54), shade))
    if rng.random() < 0.5:
        for k in range(3):
            wide, y = 0.34 - 0.07 * k, -0.2 - 0.24 * k
            pen.polygon(
                [(-wide, y), (wide, y), (0, y - 0.36)], mix(leaf, (255, 255, 255), 0.06 * k)
            )
    else:
        for x, y, r in ((-0.17, -0.5, 0.22), (0.17, -0.52, 0.22), (0, -0.72, 0.26)):
            pen.ellipse(x, y, r, r, leaf)
        pen.ellipse(-0.05, -0.75, 0.13, 0.12, lighter(leaf, 0.12))


def clutter(canvas: Canvas, rng: random.Random, number: int) -> None:
    """Small shapes that mean nothing."""
    for _ in range(number):
        _, colour = pick_colour(rng)
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        pen = canvas.pen.at(x, y, rng.uniform(0.012, 0.035), turn=rng.uniform(0, 360))
        shape = rng.choice(("dot", "triangle", "bar"))
        if shape == "dot":
            pen.ellipse(0, 0, 1, 1, colour)
        elif shape == "triangle":
            pen.polygon([(-1, 1), (1, 1), (0, -1)], colour)
        else:
            pen.box(-1.4, -0.4, 1.4, 0.4, colour)


def _plain_wall(canvas: Canvas, rng: random.Random) -> str:
    name, colour = pick_colour(rng)
    colour = mix(colour, (206, 206, 206), rng.uniform(0.3, 0.7))
    canvas.gradient(lighter(colour, rng.uniform(0, 0.3)), darker(colour, rng.uniform(0, 0.25)))
    return f"in front of {described(name)} wall"


def _brick_wall(canvas: Canvas, rng: random.Random) -> str:
    brick = varied(rng, rng.choice(((172, 92, 72), (150, 110, 90), (196, 190, 180))), 18)
    canvas.gradient(darker(brick, 0.25), darker(brick, 0.3))
    high = rng.uniform(0.07, 0.11)
    for row in range(math.ceil(canvas.height / high)):
        x = -high * (1.1 if row % 2 else 0.1)
        while x < canvas.width:
            y, shade = row * high, varied(rng, brick, 8)
            canvas.pen.box(x, y, x + high * 1.9, y + high * 0.86, shade)
            x += high * 2.05
    return "in front of a brick wall"


def _striped_wall(canvas: Canvas, rng: random.Random) -> str:
    _, colour = pick_colour(rng)
    colour = lighter(colour, rng.uniform(0.2, 0.6))
    canvas.gradient(colour, darker(colour, 0.15))
    wide = rng.uniform(0.06, 0.14)
    stripe = mix(colour, rng.choice(((255, 255, 255), (60, 60, 70))), 0.22)
    for k in range(math.ceil(canvas.width / wide / 2)):
        canvas.pen.box(2 * k * wide, 0, (2 * k + 1) * wide, canvas.height, stripe)
    return "in front of a striped wall"


def _park(canvas: Canvas, rng: random.Random) -> str:
    top, bottom = SKIES[rng.choice(("under a blue sky", "under a grey sky", "at dawn"))]
    ground = rng.uniform(0.55, 0.75) * canvas.height
    grass = varied(rng, (118, 168, 84), 20)
    canvas.gradient(varied(rng, top), varied(rng, bottom), 0, ground)
    for _ in range(rng.randint(1, 4)):
        tree(canvas.pen.at(rng.uniform(0, canvas.width), ground, rng.uniform(0.25, 0.4)), rng)
    canvas.gradient(grass, darker(grass, 0.25), ground)
    return "in a park"


def _room(canvas: Canvas, rng: random.Random) -> str:
    _, colour = pick_colour(rng)
    wall = mix(colour, (226, 220, 208), rng.uniform(0.4, 0.75))
    floor = varied(rng, rng.choice(WOODS))
    line = rng.uniform(0.72, 0.85) * canvas.height
    canvas.gradient(lighter(wall, 0.15), wall, 0, line)
    canvas.gradient(darker(floor, 0.15), floor, line)
    canvas.pen.box(0, line - 0.02, canvas.width, line + 0.01, lighter(wall, 0.5))
    window = canvas.pen.at(rng.uniform(0.15, 0.85) * canvas.width, 0.28, rng.uniform(0.13, 0.2))
    window.box(-1, -1.2, 1, 1.2, (246, 244, 238))
    window.box(-0.88, -1.08, 0.88, 1.08, varied(rng, (176, 212, 236)))
    window.box(-0.05, -1.1, 0.05, 1.1, (246, 244, 238))
    window.box(-1, -0.05, 1, 0.05, (246, 244, 238))
    return "in a room"


def wall(canvas: Canvas, rng: random.Random) -> str:
    """A plain, a striped or a brick wall, with some clutter; returns where that is."""
    walls = (_plain_wall, _striped_wall, _brick_wall)
    place = rng.choices(walls, weights=(4, 2, 1))[0](canvas, rng)
    clutter(canvas, rng, rng.choice((0, 0, 2, 4, 6)))
    return place


def backdrop(canvas: Canvas, rng: random.Random) -> str:
    """A wall, a park or a room; returns where that is."""
    return rng.choices((wall, _park, _room), weights=(7, 2, 2))[0](canvas, rng)
