"""Text-image relations of tweets (TRC; Vempala and Preoţiuc-Pietro, ACL 2019).
Only tweet ids and labels are published, damaged: ids that a spreadsheet rounded cannot be joined;
rows shifted by commas are recovered where all label columns agree. Each is listed as a quirk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rpbert.data.reading import SILENT, ImageFolder, ReadLog, lines_of, quoted
from rpbert.data.tables import read_table
from rpbert.data.words import WordSplitter
from rpbert.errors import InputError
from rpbert.types import Post

TRAIN_ROWS = 3576  # published split: these rows train, all that follow test
TWEETS = "tweets.jsonl"

_ID, _ADDS, _TEXT = "tweet_id", "image_adds", "text_is_represented"
# The four classes with their image_adds and text_is_represented.
_CLASSES = {
    "image_adds_text_repr": ("1", "1"),
    "image_adds_text_notrepr": ("1", "0"),
    "image_notadds_text_repr": ("0", "1"),
    "image_notadds_text_notrepr": ("0", "0"),
}


class TrcLabel(NamedTuple):
    """The label of one tweet: `relation` is 1.0 where the image adds to the meaning."""

    id: str
    relation: float
    line: int
    split: str


def is_trc(path: Path) -> bool:
    """Whether a CSV file has the columns of published relation labels."""
    _, header = next(lines_of(path), (0, ""))
    return {_ID, _ADDS} <= set(_cells(header))


def read_labels(path: Path, log: ReadLog = SILENT) -> Iterator[TrcLabel]:
    """The usable labels of both splits, "train" and "test"; damaged rows are quirks."""
    lines = lines_of(path, ReadLog(log.quirks))
    _, header = next(lines, (0, ""))
    names = _cells(header)
    if names[:1] != [_ID] or _ADDS not in names or not set(names[1:]) <= {_ADDS, _TEXT, *_CLASSES}:
        expected = "the published header, tweet_id,…,image_adds,…"
        raise InputError(f"{path}:1", quoted(header), expected)
    for row, (line, text) in enumerate(lines):
        cells = _cells(text)
        labels = dict(zip(names[1:], cells[1 - len(names) :], strict=False))
        if len(cells) < len(names) or not _agree(labels):
            log.note(path, line, "damaged row, dropped", quoted(text))
        elif not (cells[0].isascii() and cells[0].isdigit()):
            log.note(path, line, "id rewritten by a spreadsheet, dropped", quoted(cells[0]))
        else:
            if len(cells) > len(names):
                detail = f"id {cells[0]}, labels read from the last columns"
                log.note(path, line, "row shifted by commas, recovered", detail)
            split = "train" if row < TRAIN_ROWS else "test"
            yield TrcLabel(cells[0], float(labels[_ADDS]), line, split)


def read_trc(
    labels: Path, split: str, splitter: WordSplitter, log: ReadLog = SILENT
) -> Iterator[Post]:
    """Labelled posts of "train" or "test" in the order of tweets, as far as ``tweets.jsonl``
    (``id``, ``text``) beside the labels has them, with ``images/<id>.jpg``. A tweet that is missing
    is a quirk."""
    tweets, images = labels.parent / TWEETS, labels.parent / "images"
    if not tweets.is_file():
        expected = 'your own tweets as lines {"id": "<tweet_id>", "text": "…"}'
        hint = "only ids and labels are published; put images in images/<tweet_id>.jpg"
        raise InputError(labels.parent, f"no {TWEETS} beside {labels.name}", expected, hint)
    known = {label.id: label for label in read_labels(labels, log)}
    folder = ImageFolder(images) if images.is_dir() else None
    seen: set[str] = set()
    for post in read_table(tweets, splitter, log):
        if post.id in seen:
            line = post.origin.rpartition(":")[2]
            log.note(tweets, line, "tweet given twice", f"id {post.id}; the first is kept")
        elif label := known.get(post.id):
            seen.add(post.id)
            image = post.image
            if image is None and folder is not None:
                image = folder.find(post.id, f"{labels}:{label.line}")
            if label.split == split:
                yield post.with_(image=image, relation=label.relation)
    if not seen:
        found = f"none of the {len(known)} ids of {labels.name}"
        raise InputError(tweets, found, "rows whose id equals a tweet_id, as a string")
    for label in known.values():
        if label.split == split and label.id not in seen:
            log.note(labels, label.line, "no tweet for the label", f"id {label.id}")


def _cells(line: str) -> list[str]:
    """The cells of a line without empty ones at its end; damaged rows hold single quotes."""
    cells = [cell.strip().strip('"') for cell in line.split(",")]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _agree(labels: dict[str, str]) -> bool:
    """Whether all labels are 0 or 1 and the one-hot classes agree with the first two."""
    if not set(labels.values()) <= {"0", "1"}:
        return False
    if not _CLASSES.keys() <= labels.keys():
        return True
    classes = [_CLASSES[name] for name in _CLASSES if labels[name] == "1"]
    return len(classes) == 1 and classes[0] == (labels[_ADDS], labels.get(_TEXT, classes[0][1]))
