"""The report: one HTML page that opens from disk and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rpbert.analysis.posts import OUTCOMES, Outcome
from rpbert.analysis.summary import MEASURES, Measure, Summary
from rpbert.data.images import load_small

if TYPE_CHECKING:
    from rpbert.types import Post

SIDE = 256
"""Longest side of an image in the page, in pixels."""
IMAGE_BYTES = 24 * 2**20
"""What all images of a page may take; a post beyond it is shown without its image."""


def sample(outcomes: Sequence[Outcome], room: int) -> set[int]:
    """The numbers of at most `room` posts, drawn at random: an equal share of every outcome as far
    as there are posts of it, so that the page shows the rare ones."""
    numbers = list(range(len(outcomes)))
    random.Random(0).shuffle(numbers)
    drawn: Counter[Outcome] = Counter()
    turns = []
    for number in numbers:
        turns.append((drawn[outcomes[number]], number))
        drawn[outcomes[number]] += 1
    return {number for _, number in sorted(turns)[:room]}


def page(
    source: str,
    summary: Summary,
    rows: Sequence[tuple[Mapping[str, Any], Post]],
    figures: Mapping[Measure, str],
) -> str:
    """The page of the posts with those rows; `source` names the data, `figures` holds an SVG for
    each measure."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    templates = files("rpbert.analysis") / "templates"
    script, style = (
        (templates / name).read_text(encoding="utf-8") for name in ("report.js", "report.css")
    )
    posts, left = [], IMAGE_BYTES
    for row, post in rows:
        picture = _picture(post)
        left -= len(picture or "")
        posts.append({**row, "picture": picture if left >= 0 else None})
    environment = Environment(
        loader=PackageLoader("rpbert.analysis"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        source=source,
        names=summary.names,
        summary=summary.to_dict(),
        measures=MEASURES,
        figures={measure: Markup(svg) for measure, svg in figures.items()},
        shown=len(posts),
        data={"names": summary.names, "outcomes": OUTCOMES, "posts": posts},
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _picture(post: Post) -> str | None:
    """The image as a small JPEG, by its data URL; what a camera wrote beside it is left behind."""
    from PIL import Image

    pixels = load_small(post.image, SIDE).pixels
    if pixels is None:
        return None
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
