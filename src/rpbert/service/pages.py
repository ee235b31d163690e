"""What the page shows: its files, and posts to try, one of them with several pictures."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from rpbert.data.images import FORMATS
from rpbert.data.readers import read_shard
from rpbert.data.words import WordSplitter
from rpbert.synthetic.scenes import draw

FOLDER = Path(__file__).with_name("page")
FILES = ("app.js", "heat.js", "sentences.js", "docs.js", "style.css", "docs.css", "icon.svg")
PAGE = {"/": "index.html", "/docs": "docs.html", **{f"/{name}": name for name in FILES}}
"""Files of `FOLDER` by the paths they are served at."""

MOST_EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class Example:
    """A post to try."""

    text: str
    image: bytes | None = None  # a file
    media: str = ""  # its type
    caption: str = ""  # what it shows, for those who do not see it


def made_examples() -> list[Example]:
    """The examples that come with the package: drawn, so that they are free to share."""
    found = []
    for one in json.loads((FOLDER / "examples.json").read_text("utf-8")):
        if one["shows"] is None:
            found.append(Example(one["text"]))
        else:
            scene, buffer = draw(one["shows"], random.Random(one["seed"]), 400), io.BytesIO()
            scene.image.save(buffer, "JPEG", quality=90)
            found.append(Example(one["text"], buffer.getvalue(), "image/jpeg", scene.caption))
    return found


def read_examples(path: Path, splitter: WordSplitter) -> list[Example]:
    """The first posts of a ``.jsonl`` or ``.parquet`` file; unreadable images are left out."""
    found = []
    for post in islice(read_shard(path, splitter), MOST_EXAMPLES):
        content, media = _image(post.image)
        found.append(Example(post.text, content, media, post.caption or ""))
    return found


def _image(image: object) -> tuple[bytes | None, str]:
    try:
        content = image.read_bytes() if isinstance(image, Path) else image
        if isinstance(content, bytes):
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                return content, Image.MIME[str(opened.format)]
    except Exception:  # whatever Pillow says of the file
        pass
    return None, ""
