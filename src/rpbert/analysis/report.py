"""The report: one HTML page that opens from disk and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from rpbert.analysis.attention import Explanation
from rpbert.analysis.summary import (
    MEASURES,
    OUTCOMES,
    Measure,
    Outcome,
    Seen,
    Summary,
    entity_errors,
    spans_of,
)
from rpbert.data.images import load_small

if TYPE_CHECKING:
    from rpbert.types import Post

SIDE = 256
"""Longest side of an image in the page, in pixels."""
IMAGE_BYTES = 24 * 2**20
"""What all images of a page may take; a post beyond it is shown without its image."""


class Sample:
    """A uniform sample of the posts that were offered (Vitter 1985, algorithm R)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.offered = 0
        self.kept: list[dict[str, Any]] = []
        self._draw = random.Random(0)

    def offer(self, make: Callable[[], dict[str, Any]]) -> None:
        """Offer one more; it is made only if it is kept."""
        self.offered += 1
        if len(self.kept) < self.size:
            self.kept.append(make())
        elif (place := self._draw.randrange(self.offered)) < self.size:
            self.kept[place] = make()

    def draw(self, count: int) -> list[dict[str, Any]]:
        """A uniform sample of what is kept."""
        return self._draw.sample(self.kept, min(count, len(self.kept)))


def shares(offered: Mapping[Outcome, int], room: int) -> dict[Outcome, int]:
    """How many of each kind are taken: an equal share each, and what one leaves goes to others."""
    taken = dict.fromkeys(offered, 0)
    while room and (open_ := [kind for kind in offered if taken[kind] < offered[kind]]):
        for kind in open_[:room]:
            taken[kind] += 1
            room -= 1
    return taken


class Report:
    """Keeps a random sample of at most `room` posts, an equal share of every outcome as far as
    there are posts of it, so that the page shows the rare ones."""

    def __init__(self, names: Sequence[str], room: int) -> None:
        self.names = tuple(names)
        self.room = room
        self._kept = {outcome: Sample(room) for outcome in OUTCOMES}

    def add(self, seen: Seen) -> None:
        """Offer one more post."""
        number = sum(sample.offered for sample in self._kept.values())
        self._kept[seen.outcome].offer(lambda: {"number": number, **_shown(seen)})

    def posts(self) -> list[dict[str, Any]]:
        """The posts of the page, in the order of the data."""
        taken = shares({name: len(sample.kept) for name, sample in self._kept.items()}, self.room)
        chosen = [post for name, sample in self._kept.items() for post in sample.draw(taken[name])]
        chosen.sort(key=lambda post: int(post["number"]))
        left = IMAGE_BYTES
        for post in chosen:
            left -= len(post["picture"] or "")
            if left < 0:
                post["picture"] = None
        return chosen

    def write(
        self, file: TextIO, source: str, summary: Summary, figures: Mapping[Measure, str]
    ) -> None:
        """Write the page; `source` names the posts, `figures` holds an SVG for each measure."""
        from jinja2 import Environment, PackageLoader
        from markupsafe import Markup

        templates = files("rpbert.analysis") / "templates"
        script, style = (
            (templates / name).read_text(encoding="utf-8") for name in ("report.js", "report.css")
        )
        posts = self.posts()
        environment = Environment(
            loader=PackageLoader("rpbert.analysis"), autoescape=True, trim_blocks=True
        )
        page = environment.get_template("report.html").render(
            source=source,
            names=self.names,
            summary=summary.to_dict(),
            measures=MEASURES,
            figures={measure: Markup(svg) for measure, svg in figures.items()},
            shown=len(posts),
            data={"names": self.names, "outcomes": OUTCOMES, "posts": posts},
            style=Markup(style),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        file.write(page)


def _shown(seen: Seen) -> dict[str, Any]:
    """A post as the page's script reads it; places are characters of the text."""
    return {
        "id": seen.post.id,
        "text": seen.post.text,
        "words": seen.post.spans,
        "gold": seen.gold,
        "label": seen.label,
        "r": seen.r,
        "outcome": seen.outcome,
        "picture": _picture(seen.post),
        "image": seen.explanations[0].prediction.image,
        "models": [_model(seen, explanation) for explanation in seen.explanations],
    }


def _model(seen: Seen, explanation: Explanation) -> dict[str, Any]:
    entities = explanation.prediction.entities
    errors = [] if seen.gold is None else entity_errors(seen.gold, spans_of(entities))
    return {
        "r": explanation.prediction.relation,
        "s_tv": explanation.s_tv,
        "s_tv_per_word": explanation.s_tv_per_word,
        "entities": [[e.label, e.start, e.end, round(e.score, 3)] for e in entities],
        "errors": [[error.kind, error.gold, error.found] for error in errors],
        "attention": _quantized(explanation),
    }


def _quantized(explanation: Explanation) -> dict[str, Any] | None:
    """A as bytes: a value is its byte times `unit`; and where its tokens lie, if on no grid."""
    attention = explanation.attention
    if attention is None:
        return None
    unit = float(attention.max(initial=0.0)) / 255 or 1.0
    values = np.round(attention / unit).astype(np.uint8)
    _, rows, columns = attention.shape
    coded = base64.b64encode(values.tobytes()).decode()
    boxes = None if rows > 1 or explanation.boxes is None else explanation.boxes.round(4).tolist()
    return {
        "rows": rows,
        "columns": columns,
        "unit": unit,
        "values": coded,
        "boxes": boxes,
        "pieces": explanation.pieces,
    }


def _picture(post: Post) -> str | None:
    """The image as a small JPEG, by its data URL; what a camera wrote beside it is left behind."""
    from PIL import Image

    pixels = load_small(post.image, SIDE).pixels
    if pixels is None:
        return None
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
