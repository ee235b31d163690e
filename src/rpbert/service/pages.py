"""What the page shows: its files, and posts to try, one of them with several pictures."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from rpbert.data.images import FORMATS
from rpbert.data.readers import read_shard
from rpbert.data.words import WordSplitter
from rpbert.synthetic.scenes import draw
from rpbert.types import Post

FOLDER = Path(__file__).with_name("page")
FILES = ("app.js", "heat.js", "sentences.js", "docs.js", "style.css", "docs.css", "icon.svg")
PAGE = {"/": "index.html", "/docs": "docs.html", **{f"/{name}": name for name in FILES}}
"""Files of `FOLDER` by the paths they are served at."""

MOST_EXAMPLES = 12
# Text, what the picture shows (as an entity type), and the seed that draws it.
MADE: tuple[tuple[str, str | None, int], ...] = (
    ("can't stop thinking about Jordan", "ORG", 0),
    ("can't stop thinking about Jordan", "LOC", 4),
    ("can't stop thinking about Jordan", "PER", 0),
    ("so this is Bentley this week omg 👀", "MISC", 4),
    ("my flight to Verona is late no cap", "ORG", 5),
    ("Maria Keller sings live at Port Tolby tonight 🔥", None, 0),
)
SIZE = 400


@dataclass(frozen=True, slots=True)
class Example:
    """A post to try.

    Attributes:
        image: an encoded picture, None without one.
        media: its media type.
        caption: what it shows, for those who do not see it.
    """

    text: str
    image: bytes | None = None
    media: str = ""
    caption: str = ""


def made_examples() -> list[Example]:
    """The examples that come with the package: drawn, so that they are free to share."""
    return [_made(*one) for one in MADE]


def _made(text: str, shows: str | None, seed: int) -> Example:
    if shows is None:
        return Example(text)
    scene = draw(shows, random.Random(seed), SIZE)
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=90)
    return Example(text, buffer.getvalue(), "image/jpeg", scene.caption)


def read_examples(path: Path, splitter: WordSplitter) -> list[Example]:
    """The first posts of a ``.jsonl`` or ``.parquet`` file; unreadable images are left out.

    Raises:
        InputError: it is no such file, or a row is no post.
    """
    return [_read(post) for post in islice(read_shard(path, splitter), MOST_EXAMPLES)]


def _read(post: Post) -> Example:
    image, caption = post.image, post.caption or ""
    try:
        content = image.read_bytes() if isinstance(image, Path) else image
        if not isinstance(content, bytes):
            return Example(post.text, caption=caption)
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return Example(post.text, content, Image.MIME[str(opened.format)], caption)
    except Exception:  # whatever Pillow says of the file
        return Example(post.text, caption=caption)
