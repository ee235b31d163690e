"""Where things are: walls, a park, a room, and the landscapes that stand for a LOC."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from rpbert.synthetic.canvas import (
    SKIES,
    Canvas,
    Colour,
    Point,
    darker,
    described,
    lighter,
    mix,
    pick,
    sketch,
    sky,
    tone,
    varied,
)


def clutter(canvas: Canvas, rng: random.Random, number: int) -> None:
    """Small shapes that mean nothing."""
    for _ in range(number):
        _, colour = pick(rng)
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        pen = canvas.pen.at(x, y, rng.uniform(0.012, 0.035), turn=rng.uniform(0, 360))
        sketch(pen, rng.choice(("dot", "triangle", "bar")), rng, colour=colour)


def _plain_wall(canvas: Canvas, rng: random.Random) -> str:
    name, colour = pick(rng)
    colour = mix(colour, (206, 206, 206), rng.uniform(0.3, 0.7))
    canvas.gradient(lighter(colour, rng.uniform(0, 0.3)), darker(colour, rng.uniform(0, 0.25)))
    return f"in front of {described(name)} wall"


def _brick_wall(canvas: Canvas, rng: random.Random) -> str:
    brick = tone(rng, "brick", 18)
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
    _, colour = pick(rng)
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
    park = View(canvas, rng, ground, 0, bottom)
    grass = tone(rng, "lawn", 20)
    canvas.gradient(varied(rng, top), varied(rng, bottom), 0, ground)
    for _ in range(rng.randint(1, 4)):
        park.tree(rng.uniform(0, canvas.width), ground, rng.uniform(0.25, 0.4))
    canvas.gradient(grass, darker(grass, 0.25), ground)
    return "in a park"


def _room(canvas: Canvas, rng: random.Random) -> str:
    _, colour = pick(rng)
    wall = mix(colour, (226, 220, 208), rng.uniform(0.4, 0.75))
    floor = tone(rng, "wood")
    line = rng.uniform(0.72, 0.85) * canvas.height
    canvas.gradient(lighter(wall, 0.15), wall, 0, line)
    canvas.gradient(darker(floor, 0.15), floor, line)
    canvas.pen.box(0, line - 0.02, canvas.width, line + 0.01, lighter(wall, 0.5))
    window = canvas.pen.at(rng.uniform(0.15, 0.85) * canvas.width, 0.28, rng.uniform(0.13, 0.2))
    sketch(window, "window", rng, sky=tone(rng, "pane"))
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


@dataclass(frozen=True, slots=True)
class View:
    """A landscape being drawn."""

    canvas: Canvas
    rng: random.Random
    horizon: float
    shade: float  # how much black dims each colour
    haze: Colour  # that far things take on

    def tone(self, palette: str, spread: int = 14) -> Colour:
        """A colour of the palette in the light of the view."""
        return darker(tone(self.rng, palette, spread), self.shade)

    def place(self, above: float) -> Point:
        """A point between `above` and the foot of the picture."""
        return self.rng.uniform(0, self.canvas.width), self.rng.uniform(above, self.canvas.height)

    def tree(self, x: float, y: float, high: float) -> None:
        """A tree that stands on the point."""
        leaf, trunk = self.tone("leaf"), darker((110, 78, 54), self.shade)
        sketch(self.canvas.pen.at(x, y, high), "tree", self.rng, leaf=leaf, trunk=trunk)

    def ridge(self, base: float, high: float, rough: float, colour: Colour) -> list[Point]:
        """Ground below a sum of four waves whose heights lie above `base`; returns its edge."""
        canvas, rng = self.canvas, self.rng
        waves = [(rng.uniform(1, 3) * 2.0**k, rng.uniform(0, 6.3), rough**k) for k in range(4)]
        total, line = sum(weight for _, _, weight in waves), []
        for k in range(49):
            x = canvas.width * k / 48
            level = sum(w * (1 + math.sin(f * x * 2 + p)) / 2 for f, p, w in waves) / total
            line.append((x, base - high * level))
        corners = [(canvas.width, canvas.height), (0.0, canvas.height)]
        canvas.pen.polygon([*line, *corners], colour)
        return line


def landscape(canvas: Canvas, rng: random.Random) -> str:
    """Mountains, the sea, a city, hills, a desert or a village under some sky."""
    mood, top, bottom = sky(rng)
    horizon = rng.uniform(0.5, 0.72) * canvas.height
    canvas.gradient(top, bottom, 0, horizon + 0.02)
    night = mood == "at night"
    x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.1, 0.6) * horizon
    if night:
        for _ in range(rng.randint(15, 40)):
            place = rng.uniform(0, canvas.width), rng.uniform(0, horizon)
            canvas.pen.ellipse(*place, 0.004, 0.004, (240, 240, 220))
        canvas.pen.ellipse(x, y, 0.05, 0.05, (244, 240, 214))
        canvas.pen.ellipse(x + 0.022, y - 0.01, 0.045, 0.045, mix(top, bottom, y / horizon))
    elif mood != "under a grey sky":
        canvas.pen.ellipse(x, y, 0.075, 0.075, mix(bottom, (255, 240, 190), 0.5))
        canvas.pen.ellipse(x, y, 0.055, 0.055, (255, 240, 190))
    for _ in range(rng.choice((0, 1, 2, 3)) if not night else 0):
        pen = canvas.pen.at(rng.uniform(0, canvas.width), rng.uniform(0.05, 0.6) * horizon)
        size, grey = rng.uniform(0.05, 0.1), rng.randint(226, 250)
        sketch(pen.at(0, 0, size), "cloud", rng, cloud=(grey, grey, grey))
    views = (_mountains, _sea, _skyline, _hills, _desert, _village)
    shade = 0.45 if night else rng.uniform(0, 0.15)
    return f"{rng.choice(views)(View(canvas, rng, horizon, shade, bottom))} {mood}"


def _mountains(view: View) -> str:
    canvas, rng, horizon = view.canvas, view.rng, view.horizon
    rock = view.tone("mountain")
    snowy, snow = rng.random() < 0.6, darker((246, 248, 252), view.shade)
    for layer in range(2):
        colour = mix(rock, view.haze, 0.45 - 0.35 * layer)
        for _ in range(4 - layer):
            x, high = rng.uniform(0, canvas.width), rng.uniform(0.2, 0.42) / (1 + layer * 0.4)
            wide = high * rng.uniform(0.9, 1.4)
            peak, foot = (x, horizon - high), horizon + 0.03
            far = (x + wide, foot)
            canvas.pen.polygon([(x - wide, foot), peak, far], colour)
            canvas.pen.polygon([peak, far, (x + wide * 0.2, foot)], darker(colour, 0.15))
            if snowy:
                slope = [(x - wide * s, horizon - high * (1 - s * 0.93)) for s in (0.3, -0.3)]
                teeth = [(x + wide * 0.12, slope[1][1] - 0.02), (x, slope[1][1] + 0.02)]
                canvas.pen.polygon([slope[0], peak, slope[1], *teeth], snow)
    meadow = view.tone("meadow")
    canvas.gradient(meadow, darker(meadow, 0.3), horizon)
    for _ in range(rng.randint(0, 6)):
        view.tree(*view.place(horizon + 0.05), rng.uniform(0.1, 0.2))
    return "snowy mountains" if snowy else "mountains"


def _sea(view: View) -> str:
    canvas, rng, horizon = view.canvas, view.rng, view.horizon
    water = view.tone("water")
    canvas.gradient(mix(water, view.haze, 0.5), darker(water, 0.15), horizon)
    for _ in range(rng.randint(8, 20)):
        x, y = view.place(horizon + 0.02)
        wide = rng.uniform(0.03, 0.1)
        canvas.pen.stroke([(x - wide, y), (x + wide, y)], 0.007, mix(water, view.haze, 0.6))
    if rng.random() < 0.4:
        rock = view.tone("island")
        x = rng.uniform(0.2, 0.8) * canvas.width
        canvas.pen.ellipse(x, horizon + 0.01, rng.uniform(0.15, 0.3), 0.12, rock, 180, 360)
    if rng.random() < 0.5:
        return "the sea"
    sand = view.tone("beach")
    shore = horizon + (canvas.height - horizon) * rng.uniform(0.45, 0.7)
    view.ridge(shore + 0.06, 0.1, 0.3, sand)
    for _ in range(rng.randint(0, 2)):
        _palm(view, rng.uniform(0.1, 0.9) * canvas.width, shore + 0.08)
    return "a beach by the sea"


def _palm(view: View, x: float, y: float) -> None:
    pen, rng = view.canvas.pen.at(x, y), view.rng
    high, lean = rng.uniform(0.3, 0.45), rng.uniform(-0.12, 0.12)
    leaf, trunk = view.tone("palm"), darker((128, 96, 66), view.shade)
    pen.stroke([(0, 0), (lean * 0.4, -high * 0.5), (lean, -high)], 0.03, trunk)
    for angle in (-200, -160, -120, -60, -20, 20):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        middle = (lean + 0.1 * cos, -high + 0.07 * sin - 0.02)
        tip = (lean + 0.19 * cos, -high + 0.1 * sin + 0.05)
        pen.stroke([(lean, -high), middle, tip], 0.022, leaf)


def _skyline(view: View) -> str:
    canvas, rng, horizon, haze = view.canvas, view.rng, view.horizon, view.haze
    base = horizon + (canvas.height - horizon) * 0.6
    canvas.gradient(haze, mix(haze, (90, 100, 116), 0.4), horizon)
    for layer in range(2):
        x = -rng.uniform(0, 0.1)
        while x < canvas.width:
            wide, high = rng.uniform(0.07, 0.16), rng.uniform(0.18, 0.6) * (1 - 0.3 * layer)
            colour = mix(view.tone("building"), haze, 0.4 - 0.35 * layer)
            canvas.pen.box(x, base - high, x + wide, base, colour)
            if rng.random() < 0.2:
                middle, roof = x + wide / 2, base - high
                canvas.pen.stroke([(middle, roof), (middle, roof - 0.08)], 0.008, colour)
            lit = (250, 220, 130) if view.shade > 0.3 else lighter(colour, 0.35)
            for row in range(int(high / 0.045)):
                for column in range(int(wide / 0.035)):
                    if rng.random() < 0.55:
                        left, up = x + 0.012 + column * 0.035, base - high + 0.015 + row * 0.045
                        canvas.pen.box(left, up, left + 0.016, up + 0.022, lit)
            x += wide + rng.uniform(-0.01, 0.03)
    floor = view.tone("ground")
    canvas.gradient(floor, darker(floor, 0.25), base)
    return "a city skyline"


def _hills(view: View) -> str:
    canvas, rng, horizon, haze = view.canvas, view.rng, view.horizon, view.haze
    grass = view.tone("hill")
    canvas.gradient(mix(grass, haze, 0.5), grass, horizon)
    for layer in range(3):
        base = horizon + (canvas.height - horizon) * layer * 0.33 + 0.05
        line = view.ridge(base, 0.2, 0.25, mix(grass, haze, 0.4 - 0.2 * layer))
        for _ in range(rng.randint(0, 4)):
            x, y = rng.choice(line)
            view.tree(x, y + 0.01, 0.09 + 0.07 * layer)
    return "green hills"


def _desert(view: View) -> str:
    canvas, rng, horizon, haze = view.canvas, view.rng, view.horizon, view.haze
    sand = view.tone("dune")
    canvas.gradient(mix(sand, haze, 0.4), sand, horizon)
    for layer in range(3):
        dune = mix(darker(sand, 0.08 * layer), haze, 0.3 - 0.15 * layer)
        view.ridge(horizon + (canvas.height - horizon) * layer * 0.3 + 0.04, 0.14, 0.15, dune)
    for _ in range(rng.randint(0, 4)):
        pen = canvas.pen.at(*view.place(horizon + 0.1), rng.uniform(0.1, 0.2))
        sketch(pen, "cactus", rng, green=darker((84, 130, 84), view.shade))
    return "a desert with dunes"


def _village(view: View) -> str:
    canvas, rng, horizon, shade = view.canvas, view.rng, view.horizon, view.shade
    grass = view.tone("grass", 20)
    canvas.gradient(grass, darker(grass, 0.25), horizon)
    view.ridge(horizon + 0.04, 0.16, 0.2, mix(grass, view.haze, 0.3))
    canvas.gradient(grass, darker(grass, 0.25), horizon + 0.03)
    spots = sorted(rng.uniform(horizon + 0.06, canvas.height) for _ in range(rng.randint(3, 7)))
    for y in spots:
        x, scale = rng.uniform(0, canvas.width), 0.12 + 0.14 * (y - horizon)
        walls = darker(rng.choice(((240, 232, 214), (228, 200, 170), (206, 216, 222))), shade)
        colours = {"wall": walls, "roof": view.tone("roof"), "door": darker((120, 84, 60), shade)}
        colours["window"] = (250, 214, 120) if shade > 0.3 else (110, 140, 160)
        sketch(canvas.pen.at(x, y, scale), "house", rng, **colours)
        view.tree(x + scale * rng.choice((-1.1, 1.1)), y, scale * 1.3)
    return "a village of small houses"
