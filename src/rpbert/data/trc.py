"""Text-image relations of tweets (TRC; Vempala and Preoţiuc-Pietro, ACL 2019).

Its authors publish tweet ids and labels only; the user joins them with tweets and images of their
own, by exact id. The file is damaged as published, which is survived and listed: ids a spreadsheet
rounded cannot be joined, and rows shifted by commas of a since removed text are recovered where
all label columns are found and agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rpbert.data.reading import ImageFolder, Quirk, lines_of, note, shown
from rpbert.data.tables import read_jsonl
from rpbert.data.words import WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post

TRAIN_ROWS = 3576  # published split: these rows train, all behind them test

_ID, _ADDS, _TEXT = "tweet_id", "image_adds", "text_is_represented"
# Each of the four classes with what it says of image_adds and text_is_represented.
_CLASSES = {
    "image_adds_text_repr": ("1", "1"),
    "image_adds_text_notrepr": ("1", "0"),
    "image_notadds_text_repr": ("0", "1"),
    "image_notadds_text_notrepr": ("0", "0"),
}


@dataclass(frozen=True, slots=True)
class TrcLabel:
    """The label of one tweet: `relation` is 1.0 where the image adds to the meaning."""

    id: str
    relation: float
    split: str
    line: int


def is_trc(path: Path) -> bool:
    """Whether a CSV file has the columns of published relation labels."""
    _, header = next(lines_of(path), (0, ""))
    return {_ID, _ADDS} <= set(_cells(header))


def read_labels(path: Path, split: str, quirks: list[Quirk] | None = None) -> Iterator[TrcLabel]:
    """The usable labels of one split ("train" or "test"); damaged rows go to `quirks`.

    Raises:
        InputError: the file is missing or its header is not that of the published labels.
    """
    lines = lines_of(path, quirks)
    _, header = next(lines, (0, ""))
    names = _cells(header)
    if names[:1] != [_ID] or _ADDS not in names or not set(names[1:]) <= {_ADDS, _TEXT, *_CLASSES}:
        raise InputError(
            f"{path}:1", shown(header), "the published header, tweet_id,…,image_adds,…"
        )
    for row, (line, text) in enumerate(lines):
        if ("train" if row < TRAIN_ROWS else "test") != split:
            continue
        cells = _cells(text)
        labels = dict(zip(names[1:], cells[1 - len(names) :], strict=False))
        if len(cells) < len(names) or not _agree(labels):
            note(quirks, path, line, "damaged row, dropped", shown(text))
        elif not (cells[0].isascii() and cells[0].isdigit()):
            note(quirks, path, line, "id rewritten by a spreadsheet, dropped", shown(cells[0]))
        else:
            if len(cells) > len(names):
                detail = f"id {cells[0]}, labels read from the last columns"
                note(quirks, path, line, "row shifted by commas, recovered", detail)
            yield TrcLabel(cells[0], float(labels[_ADDS]), split, line)


def read_trc(
    labels: Path,
    tweets: Path,
    images: Path | None,
    split: str,
    splitter: WordSplitter,
    quirks: list[Quirk] | None = None,
    faults: Faults = refuse,
) -> Iterator[Post]:
    """Labelled posts of one split, joined by exact id, in the published order.

    Args:
        labels: the published CSV file.
        tweets: JSON lines with ``id`` and ``text``.
        images: folder with ``<id>.jpg``, or None where there is none.
        split: "train" or "test".
        splitter: cuts each text into words.
        quirks: collects damaged rows, labels without a tweet and tweets without an image.
        faults: told of each row of `tweets` that is none of a post.

    Raises:
        InputError: a file is missing or malformed, or no tweet at all has a label.
    """
    posts: dict[str, Post] = {}
    wanted = {label.id for part in ("train", "test") for label in read_labels(labels, part)}
    for post in read_jsonl(tweets, splitter, quirks, faults=faults):
        if post.id in posts:
            line = int(post.origin.rpartition(":")[2])
            note(quirks, tweets, line, "tweet given twice", f"id {post.id}; the first is kept")
        elif post.id in wanted:
            posts[post.id] = post
    if not posts:
        found = f"none of the {len(wanted)} ids of {labels.name}"
        raise InputError(tweets, found, "rows whose id equals a tweet_id, as a string")
    folder = ImageFolder(images) if images else None
    for label in read_labels(labels, split, quirks):
        joined = posts.get(label.id)
        if joined is None:
            note(quirks, labels, label.line, "no tweet for the label", f"id {label.id}")
            continue
        image = joined.image
        if image is None and folder is not None:
            image = folder.find(label.id, f"{labels}:{label.line}")
        if image is None or (isinstance(image, Path) and not image.is_file()):
            note(quirks, labels, label.line, "no image for the label", f"id {label.id}")
        yield joined.with_(image=image, relation=label.relation)


def _cells(line: str) -> list[str]:
    """The comma-separated cells of a line, without the empty ones at its end.

    Quotes are not read as in CSV: the damaged rows hold single ones.
    """
    cells = [cell.strip().strip('"') for cell in line.split(",")]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _agree(labels: dict[str, str]) -> bool:
    """Whether all labels are 0 or 1 and the one-hot classes agree with the first two."""
    if not set(labels.values()) <= {"0", "1"}:
        return False
    classes = [_CLASSES[name] for name in _CLASSES if labels.get(name) == "1"]
    if not _CLASSES.keys() <= labels.keys():
        return True
    return len(classes) == 1 and classes[0] == (labels[_ADDS], labels.get(_TEXT, classes[0][1]))
