"""LOC: a place seen from afar, by day or by night."""

from __future__ import annotations

import math
import random

from rpbert.synthetic.drawing.backgrounds import SKIES, tree
from rpbert.synthetic.drawing.canvas import (
    Canvas,
    Colour,
    Pen,
    darker,
    lighter,
    mix,
    varied,
)


def landscape(canvas: Canvas, rng: random.Random) -> str:
    """Mountains, the sea, a city, hills, a desert or a village under some sky."""
    mood = rng.choice(tuple(SKIES))
    top, bottom = (varied(rng, colour) for colour in SKIES[mood])
    horizon = rng.uniform(0.5, 0.72) * canvas.height
    canvas.gradient(top, bottom, 0, horizon + 0.02)
    night = mood == "at night"
    x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.1, 0.6) * horizon
    if night:
        for _ in range(rng.randint(15, 40)):
            star = rng.uniform(0, canvas.width), rng.uniform(0, horizon)
            canvas.pen.ellipse(*star, 0.004, 0.004, (240, 240, 220))
        canvas.pen.ellipse(x, y, 0.05, 0.05, (244, 240, 214))
        canvas.pen.ellipse(x + 0.022, y - 0.01, 0.045, 0.045, mix(top, bottom, y / horizon))
    elif mood != "under a grey sky":
        canvas.pen.ellipse(x, y, 0.075, 0.075, mix(bottom, (255, 240, 190), 0.5))
        canvas.pen.ellipse(x, y, 0.055, 0.055, (255, 240, 190))
    for _ in range(rng.choice((0, 1, 2, 3)) if not night else 0):
        _cloud(canvas.pen.at(rng.uniform(0, canvas.width), rng.uniform(0.05, 0.6) * horizon), rng)
    views = (_mountains, _sea, _skyline, _hills, _desert, _village)
    shade = 0.45 if night else rng.uniform(0, 0.15)
    return f"{rng.choice(views)(canvas, rng, horizon, shade, bottom)} {mood}"


def _cloud(pen: Pen, rng: random.Random) -> None:
    scale, shade = rng.uniform(0.05, 0.1), rng.randint(226, 250)
    for x, y, r in ((-1.2, 0, 0.6), (-0.4, -0.3, 0.8), (0.5, -0.15, 0.7), (1.2, 0.05, 0.5)):
        pen.at(0, 0, scale).ellipse(x, y, r, r * 0.8, (shade, shade, shade))
    pen.at(0, 0, scale).box(-1.5, 0, 1.5, 0.45, (shade, shade, shade), 0.2)


def _ridge(
    canvas: Canvas, rng: random.Random, base: float, high: float, rough: float
) -> list[tuple[float, float]]:
    """A skyline of earth: a sum of three waves whose heights lie below `base`."""
    waves = [(rng.uniform(1, 3) * 2.0**k, rng.uniform(0, 6.3), rough**k) for k in range(4)]
    total = sum(weight for _, _, weight in waves)
    line = []
    for k in range(49):
        x = canvas.width * k / 48
        level = sum(w * (1 + math.sin(f * x * 2 + p)) / 2 for f, p, w in waves) / total
        line.append((x, base - high * level))
    return line


def _ground(canvas: Canvas, line: list[tuple[float, float]], colour: Colour) -> None:
    corners = [(canvas.width, canvas.height), (0.0, canvas.height)]
    canvas.pen.polygon([*line, *corners], colour)


def _mountains(
    canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour
) -> str:
    rock = darker(varied(rng, rng.choice(((96, 110, 130), (120, 104, 96), (84, 112, 104)))), shade)
    snowy = rng.random() < 0.6
    for layer in range(2):
        colour = mix(rock, haze, 0.45 - 0.35 * layer)
        for _ in range(4 - layer):
            x, high = rng.uniform(0, canvas.width), rng.uniform(0.2, 0.42) / (1 + layer * 0.4)
            wide = high * rng.uniform(0.9, 1.4)
            peak, foot = (x, horizon - high), horizon + 0.03
            canvas.pen.polygon([(x - wide, foot), peak, (x + wide, foot)], colour)
            canvas.pen.polygon(
                [peak, (x + wide, foot), (x + wide * 0.2, foot)], darker(colour, 0.15)
            )
            if snowy:
                slope = [(x - wide * s, horizon - high * (1 - s * 0.93)) for s in (0.3, -0.3)]
                teeth = [(x + wide * 0.12, slope[1][1] - 0.02), (x, slope[1][1] + 0.02)]
                canvas.pen.polygon(
                    [slope[0], peak, slope[1], *teeth], darker((246, 248, 252), shade)
                )
    meadow = darker(varied(rng, (104, 148, 84)), shade)
    canvas.gradient(meadow, darker(meadow, 0.3), horizon)
    for _ in range(rng.randint(0, 6)):
        place = rng.uniform(0, canvas.width), rng.uniform(horizon + 0.05, canvas.height)
        tree(canvas.pen.at(*place, rng.uniform(0.1, 0.2)), rng, shade)
    return "snowy mountains" if snowy else "mountains"


def _sea(canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour) -> str:
    water = darker(varied(rng, rng.choice(((46, 116, 168), (40, 140, 150)))), shade)
    canvas.gradient(mix(water, haze, 0.5), darker(water, 0.15), horizon)
    for _ in range(rng.randint(8, 20)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(horizon + 0.02, canvas.height)
        wide = rng.uniform(0.03, 0.1)
        canvas.pen.stroke([(x - wide, y), (x + wide, y)], 0.007, mix(water, haze, 0.6))
    if rng.random() < 0.4:
        rock = darker(varied(rng, (88, 118, 96)), shade)
        x = rng.uniform(0.2, 0.8) * canvas.width
        canvas.pen.ellipse(x, horizon + 0.01, rng.uniform(0.15, 0.3), 0.12, rock, 180, 360)
    if rng.random() < 0.5:
        return "the sea"
    sand = darker(varied(rng, (230, 206, 154)), shade)
    shore = horizon + (canvas.height - horizon) * rng.uniform(0.45, 0.7)
    _ground(canvas, _ridge(canvas, rng, shore + 0.06, 0.1, 0.3), sand)
    for _ in range(rng.randint(0, 2)):
        _palm(canvas.pen.at(rng.uniform(0.1, 0.9) * canvas.width, shore + 0.08), rng, shade)
    return "a beach by the sea"


def _palm(pen: Pen, rng: random.Random, shade: float) -> None:
    high, lean = rng.uniform(0.3, 0.45), rng.uniform(-0.12, 0.12)
    leaf = darker(varied(rng, (60, 132, 76)), shade)
    pen.stroke(
        [(0, 0), (lean * 0.4, -high * 0.5), (lean, -high)], 0.03, darker((128, 96, 66), shade)
    )
    for angle in (-200, -160, -120, -60, -20, 20):
        t = math.radians(angle)
        middle = (lean + 0.1 * math.cos(t), -high + 0.07 * math.sin(t) - 0.02)
        tip = (lean + 0.19 * math.cos(t), -high + 0.1 * math.sin(t) + 0.05)
        pen.stroke([(lean, -high), middle, tip], 0.022, leaf)


def _skyline(canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour) -> str:
    base = horizon + (canvas.height - horizon) * 0.6
    canvas.gradient(haze, mix(haze, (90, 100, 116), 0.4), horizon)
    for layer in range(2):
        x = -rng.uniform(0, 0.1)
        while x < canvas.width:
            wide, high = rng.uniform(0.07, 0.16), rng.uniform(0.18, 0.6) * (1 - 0.3 * layer)
            stone = rng.choice(((96, 104, 122), (134, 120, 112), (76, 92, 110), (160, 152, 144)))
            colour = mix(darker(varied(rng, stone), shade), haze, 0.4 - 0.35 * layer)
            canvas.pen.box(x, base - high, x + wide, base, colour)
            if rng.random() < 0.2:
                roof = base - high
                canvas.pen.stroke(
                    [(x + wide / 2, roof), (x + wide / 2, roof - 0.08)], 0.008, colour
                )
            lit = (250, 220, 130) if shade > 0.3 else lighter(colour, 0.35)
            for row in range(int(high / 0.045)):
                for column in range(int(wide / 0.035)):
                    if rng.random() < 0.55:
                        left, up = x + 0.012 + column * 0.035, base - high + 0.015 + row * 0.045
                        canvas.pen.box(left, up, left + 0.016, up + 0.022, lit)
            x += wide + rng.uniform(-0.01, 0.03)
    floor = darker(varied(rng, rng.choice(((92, 100, 108), (70, 116, 140), (98, 128, 92)))), shade)
    canvas.gradient(floor, darker(floor, 0.25), base)
    return "a city skyline"


def _hills(canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour) -> str:
    grass = darker(varied(rng, rng.choice(((112, 164, 78), (150, 168, 84), (88, 140, 92)))), shade)
    canvas.gradient(mix(grass, haze, 0.5), grass, horizon)
    for layer in range(3):
        base = horizon + (canvas.height - horizon) * layer * 0.33 + 0.05
        colour = mix(grass, haze, 0.4 - 0.2 * layer)
        line = _ridge(canvas, rng, base, 0.2, 0.25)
        _ground(canvas, line, colour)
        for _ in range(rng.randint(0, 4)):
            x, y = rng.choice(line)
            tree(canvas.pen.at(x, y + 0.01, 0.09 + 0.07 * layer), rng, shade)
    return "green hills"


def _desert(canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour) -> str:
    sand = darker(varied(rng, rng.choice(((222, 178, 112), (206, 150, 98)))), shade)
    canvas.gradient(mix(sand, haze, 0.4), sand, horizon)
    for layer in range(3):
        base = horizon + (canvas.height - horizon) * layer * 0.3 + 0.04
        line = _ridge(canvas, rng, base, 0.14, 0.15)
        _ground(canvas, line, mix(darker(sand, 0.08 * layer), haze, 0.3 - 0.15 * layer))
    for _ in range(rng.randint(0, 4)):
        place = rng.uniform(0, canvas.width), rng.uniform(horizon + 0.1, canvas.height)
        pen, green = canvas.pen.at(*place, rng.uniform(0.1, 0.2)), darker((84, 130, 84), shade)
        pen.stroke([(0, 0), (0, -0.9)], 0.16, green)
        pen.stroke([(0, -0.4), (-0.3, -0.45), (-0.3, -0.7)], 0.12, green)
        pen.stroke([(0, -0.3), (0.3, -0.35), (0.3, -0.6)], 0.12, green)
    return "a desert with dunes"


def _village(canvas: Canvas, rng: random.Random, horizon: float, shade: float, haze: Colour) -> str:
    grass = darker(varied(rng, (122, 160, 88), 20), shade)
    canvas.gradient(grass, darker(grass, 0.25), horizon)
    _ground(canvas, _ridge(canvas, rng, horizon + 0.04, 0.16, 0.2), mix(grass, haze, 0.3))
    canvas.gradient(grass, darker(grass, 0.25), horizon + 0.03)
    spots = sorted(rng.uniform(horizon + 0.06, canvas.height) for _ in range(rng.randint(3, 7)))
    for y in spots:
        x, scale = rng.uniform(0, canvas.width), 0.12 + 0.14 * (y - horizon)
        pen = canvas.pen.at(x, y, scale)
        wall = darker(rng.choice(((240, 232, 214), (228, 200, 170), (206, 216, 222))), shade)
        roof = darker(
            varied(rng, rng.choice(((176, 84, 66), (120, 84, 70), (96, 104, 120)))), shade
        )
        window = (250, 214, 120) if shade > 0.3 else (110, 140, 160)
        pen.box(-0.6, -0.7, 0.6, 0, wall)
        pen.polygon([(-0.75, -0.68), (0, -1.25), (0.75, -0.68)], roof)
        pen.box(-0.12, -0.4, 0.12, 0, darker((120, 84, 60), shade))
        for side in (-1, 1):
            pen.box(0.36 * side - 0.12, -0.5, 0.36 * side + 0.12, -0.25, window)
        tree(canvas.pen.at(x + scale * rng.choice((-1.1, 1.1)), y, scale * 1.3), rng, shade)
    return "a village of small houses"
