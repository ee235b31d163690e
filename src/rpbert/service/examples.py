"""Posts to try on the page: one text with several pictures shows best what an image changes."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rpbert.data.images import FORMATS
from rpbert.data.readers import read_shard
from rpbert.data.words import WordSplitter
from rpbert.synthetic.scenes import draw

MOST = 12
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
    """A post of the page.

    Attributes:
        image: an encoded picture, None without one.
        media: its media type.
        caption: what it shows, for those who do not see it.
    """

    text: str
    image: bytes | None
    media: str
    caption: str

    def to_dict(self, number: int) -> dict[str, Any]:
        """The example as JSON types, its picture by address."""
        image = None if self.image is None else f"/v1/examples/{number}/image"
        return {"text": self.text, "image": image, "caption": self.caption}


def made_examples() -> list[Example]:
    """The examples that come with the package: drawn, so that they are free to share."""
    return [_made(*one) for one in MADE]


def _made(text: str, shows: str | None, seed: int) -> Example:
    if shows is None:
        return Example(text, None, "", "")
    scene = draw(shows, random.Random(seed), SIZE)
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=90)
    return Example(text, buffer.getvalue(), "image/jpeg", scene.caption)


def read_examples(path: Path, splitter: WordSplitter) -> list[Example]:
    """The first posts of a ``.jsonl`` or ``.parquet`` file.

    Raises:
        InputError: it is no such file, or a row is no post.
    """
    posts = islice(read_shard(path, splitter), MOST)
    return [_read(post.text, post.image, post.caption or "") for post in posts]


def _read(text: str, image: Any, caption: str) -> Example:
    """A post of a file; a picture that cannot be read is left out, the post is not."""
    from PIL import Image

    content = image if isinstance(image, bytes) else None
    if isinstance(image, Path) and image.is_file():
        content = image.read_bytes()
    if content is None:
        return Example(text, None, "", caption)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            media = Image.MIME[str(opened.format)]
    except Exception:  # a fact about the file, see `rpbert.data.images`
        return Example(text, None, "", caption)
    return Example(text, content, media, caption)
