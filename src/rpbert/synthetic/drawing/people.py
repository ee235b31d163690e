"""PER: one to three people, whole or head and shoulders."""

from __future__ import annotations

import random

from rpbert.synthetic.drawing.backgrounds import backdrop
from rpbert.synthetic.drawing.canvas import (
    Canvas,
    Colour,
    Pen,
    arc,
    darker,
    described,
    mix,
    pick_colour,
    varied,
)

SKINS: tuple[Colour, ...] = (
    (250, 220, 196),
    (240, 198, 166),
    (222, 172, 134),
    (190, 136, 98),
    (150, 100, 70),
    (104, 68, 48),
)
HAIRS: tuple[Colour, ...] = (
    (36, 30, 30),
    (74, 48, 34),
    (124, 78, 44),
    (206, 160, 88),
    (168, 72, 40),
    (190, 190, 188),
)
NUMBERS = {2: "two", 3: "three"}


def people(canvas: Canvas, rng: random.Random) -> str:
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
            y = canvas.height - scale * rng.uniform(0.75, 0.9)
            pen = canvas.pen.at(x, y, scale, rng.uniform(-4, 4), mirror)
            names.append(_portrait(pen, rng))
        else:
            scale = min(rng.uniform(0.4, 0.47) * canvas.height, room * 1.1)
            y = canvas.height * rng.uniform(0.94, 0.99) - scale
            pen = canvas.pen.at(x, y, scale, rng.uniform(-3, 3), mirror)
            names.append(_figure(pen, rng))
    if number == 1:
        return f"a smiling person in {described(names[0])} shirt {place}"
    return f"{NUMBERS[number]} people {place}, one in {described(names[0])} shirt"


def _portrait(pen: Pen, rng: random.Random) -> str:
    """Head and shoulders; the head is about 0.7 high, the shoulders 1.2 wide."""
    skin, hair = varied(rng, rng.choice(SKINS), 8), varied(rng, rng.choice(HAIRS), 8)
    name, shirt = pick_colour(rng, skin)
    style = rng.choice(("short", "long", "bun", "curly", "bald", "cap"))
    if style == "long":
        pen.box(-0.36, -0.6, 0.36, 0.42, hair, 0.3)
    if style == "bun":
        pen.ellipse(0, -0.74, 0.15, 0.14, hair)
    if style == "curly":
        for x, y in arc(0, -0.3, 0.33, 0.36, 150, 390, 9):
            pen.ellipse(x, y, 0.14, 0.14, hair)
    pen.box(-0.62, 0.3, 0.62, 1.6, shirt, 0.28)
    pen.stroke([(-0.36, 0.75), (-0.38, 1.5)], 0.025, darker(shirt))
    pen.stroke([(0.36, 0.75), (0.38, 1.5)], 0.025, darker(shirt))
    pen.ellipse(0, 0.3, 0.2, 0.13, darker(shirt, 0.2))
    pen.box(-0.12, 0.0, 0.12, 0.34, darker(skin, 0.14), 0.09)
    for side in (-1, 1):
        pen.ellipse(0.3 * side, -0.2, 0.06, 0.09, darker(skin, 0.1))
    pen.ellipse(0, -0.22, 0.29, 0.36, skin)
    _face(pen, rng, skin, hair)
    if style in ("short", "long", "bun", "curly"):
        pen.ellipse(0, -0.33, 0.315, 0.29, hair, 188, 352)
    elif style == "cap":
        _, cap = pick_colour(rng, skin, shirt)
        pen.ellipse(0, -0.34, 0.32, 0.3, cap, 180, 360)
        pen.box(0.0, -0.38, 0.48, -0.31, darker(cap, 0.2), 0.03)
    return name


def _face(pen: Pen, rng: random.Random, skin: Colour, hair: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(0.115 * side, -0.2, 0.05, 0.032, (250, 250, 250))
        pen.ellipse(0.115 * side, -0.2, 0.027, 0.03, (46, 36, 34))
        pen.stroke([(0.065 * side, -0.275), (0.165 * side, -0.28)], 0.022, darker(hair, 0.2))
        pen.ellipse(0.17 * side, -0.09, 0.05, 0.03, mix(skin, (226, 110, 100), 0.3))
    pen.stroke([(0.0, -0.18), (0.03, -0.09), (-0.01, -0.085)], 0.016, darker(skin, 0.25))
    if rng.random() < 0.2:
        pen.ellipse(0, -0.1, 0.24, 0.25, hair, 15, 165)
    if rng.random() < 0.6:
        pen.ellipse(0, -0.03, 0.11, 0.09, (150, 50, 54), 5, 175)
        pen.box(-0.085, -0.022, 0.085, -0.001, (250, 248, 244))
    else:
        pen.stroke(arc(0, -0.07, 0.1, 0.08, 30, 150, 8), 0.024, (160, 66, 66))
    if rng.random() < 0.25:
        frame = rng.choice(((40, 40, 46), (150, 50, 50), (70, 90, 150)))
        for side in (-1, 1):
            pen.stroke(arc(0.12 * side, -0.2, 0.085, 0.075, 0, 360, 16), 0.02, frame)
        pen.stroke([(-0.04, -0.21), (0.04, -0.21)], 0.02, frame)


def _figure(pen: Pen, rng: random.Random) -> str:
    """A whole person from (0, -1), the top of the head, to (0, 1), the feet."""
    skin, hair = varied(rng, rng.choice(SKINS), 8), varied(rng, rng.choice(HAIRS), 8)
    name, shirt = pick_colour(rng, skin)
    _, trousers = pick_colour(rng, skin, shirt)
    stride = rng.uniform(0.05, 0.22)
    for side in (-1, 1):
        pen.stroke([(0.1 * side, 0.1), (0.1 * side + stride * side, 0.92)], 0.16, trousers)
        pen.ellipse(0.14 * side + stride * side, 0.95, 0.12, 0.055, (52, 46, 48))
    pen.box(-0.23, -0.5, 0.23, 0.2, shirt, 0.1)
    for side in (-1, 1):
        elbow, hand = rng.choice(
            (
                ((0.36, -0.14), (0.38, 0.14)),  # hanging
                ((0.42, -0.5), (0.46, -0.88)),  # waving
                ((0.42, -0.2), (0.2, 0.02)),  # on the hip
                ((0.44, -0.36), (0.68, -0.44)),  # stretched out
            )
        )
        shoulder, bend = (0.17 * side, -0.42), (elbow[0] * side, elbow[1])
        pen.stroke([shoulder, bend], 0.13, darker(shirt, 0.12))
        pen.stroke([bend, (hand[0] * side, hand[1])], 0.09, skin)
        pen.ellipse(hand[0] * side, hand[1], 0.065, 0.065, skin)
    pen.box(-0.06, -0.62, 0.06, -0.46, darker(skin, 0.14))
    if rng.random() < 0.4:
        pen.box(-0.2, -0.9, 0.2, -0.45, hair, 0.15)
    head = pen.at(0, -0.655, 0.58)
    head.ellipse(0, -0.2, 0.29, 0.34, skin)
    _face(head, rng, skin, hair)
    head.ellipse(0, -0.3, 0.31, 0.29, hair, 188, 352)
    return name
