"""Posts from JSON lines and Parquet: a row a post, read one after the other, never all at once.

A row has ``id``, ``text`` and/or ``tokens``, and optionally ``image``, ``tags`` or ``entities``,
``relation``, ``caption`` and ``image_text``; null stands for absent. Of a post with several images
the last four and ``image`` are lists of the same length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rpbert.data.labels import (
    Span,
    is_tag,
    lenient_spans,
    normalise,
    normalise_label,
    strict_spans,
    tags_of,
)
from rpbert.data.parquet import parquet_rows
from rpbert.data.reading import (
    Quirk,
    lines_of,
    note,
    note_words,
    refuse_misspelt,
    relation_of,
    safe_relative,
    shown,
    without_surrogates,
)
from rpbert.data.words import WordSplitter, align
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post, PostImage

SHOWN = ("image", "caption", "relation", "image_text")
"""Keys of what an image is and what is known of it."""
KEYS = frozenset(("id", "text", "tokens", "tags", "entities", *SHOWN))
NO_GOLD = KEYS - {"tags", "entities", "relation"}
"""What tagging reads: gold that cannot be used must not stop it."""
MOST_IMAGES = 16
"""Images of a post; a tweet has 4 at most."""
CUT_WORD = "entity inside a word"
"""The quirk of a raw text whose words the gold entities cut further than the splitter would."""


def read_jsonl(
    path: Path,
    splitter: WordSplitter,
    quirks: list[Quirk] | None = None,
    keys: frozenset[str] = KEYS,
    faults: Faults = refuse,
) -> Iterator[Post]:
    """Posts of a file with one JSON object a line; of its known keys only `keys` are read.

    Args:
        faults: told of a line that is no row of a post.

    Raises:
        InputError: the file is missing.
    """
    seen: set[str] = set()
    for number, line in lines_of(path, quirks, faults):
        if not line.strip():
            note(quirks, path, number, "blank line", "skipped")
            continue
        try:
            values = json_object(line, f"{path}:{number}")
            post = _post(_Row(_only(values, keys), path, number, quirks), splitter, seen)
        except InputError as fault:
            faults(fault)
            continue
        yield post


def json_object(text: str, where: object) -> dict[str, Any]:
    """The JSON object that a text holds.

    Raises:
        InputError: it holds none.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "out of range"
        found = f"no JSON ({reason}): {shown(text)}"
        raise InputError(where, found, "one JSON object") from error
    if not isinstance(values, dict):
        raise InputError(where, shown(values), "one JSON object")
    return values


def read_parquet(
    path: Path,
    splitter: WordSplitter,
    quirks: list[Quirk] | None = None,
    keys: frozenset[str] = KEYS,
    faults: Faults = refuse,
) -> Iterator[Post]:
    """Posts of a Parquet file, `keys` as for JSON lines; messages count its rows from 1.

    Args:
        faults: told of a row that is none of a post.

    Raises:
        InputError: the file is missing or damaged.
    """
    seen: set[str] = set()
    for number, scalars in enumerate(parquet_rows(path, keys, KEYS, quirks), start=1):
        row = _Row({}, path, number, quirks)
        try:
            values = {key: scalar.as_py() for key, scalar in scalars.items()}
            post = _post(replace(row, values=values), splitter, seen)
        except UnicodeDecodeError:
            faults(row.refuse("a string that is no UTF-8", "UTF-8 text"))
            continue
        except InputError as fault:
            faults(fault)
            continue
        yield post


def _only(values: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys or key not in KEYS}


@dataclass(frozen=True, slots=True)
class _Row:
    """The values of one row, with the place that messages name."""

    values: Mapping[str, Any]
    path: Path
    line: int
    quirks: list[Quirk] | None

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def refuse(self, found: str, expected: str, hint: str = "") -> InputError:
        return InputError(self.where, found, expected, hint)

    def note(self, kind: str, detail: str) -> None:
        note(self.quirks, self.path, self.line, kind, detail)

    def clean(self, text: str) -> str:
        return without_surrogates(text, (self.path, self.line), self.quirks)

    def text(self, key: str) -> str | None:
        """The string under `key`, None where absent."""
        return self.string(key, self.values.get(key))

    def string(self, key: str, value: object) -> str | None:
        """A value of `key` as a string, None where absent."""
        if value is not None and not isinstance(value, str):
            raise self.refuse(f"{key} {shown(value)}", f"{key} as a string")
        return None if value is None else self.clean(value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """The list of strings under `key`, None where absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(f"{key} {shown(value)}", f"{key} as a list of strings")
        return tuple(self.clean(item) for item in value)


def post_of_values(
    values: Mapping[str, Any], path: Path, line: int, splitter: WordSplitter
) -> Post:
    """The post of one row's values, as a file would hold them.

    Args:
        path: named in messages, and what an image's path is relative to.
        line: named in messages.

    Raises:
        InputError: a value is missing or of the wrong kind.
    """
    return _post(_Row(values, path, line, None), splitter, set())


def _post(row: _Row, splitter: WordSplitter, seen: set[str]) -> Post:
    """The post of a row; `seen` holds the unknown keys already noted."""
    for key in sorted(map(str, row.values.keys() - KEYS - seen)):
        refuse_misspelt(key, row.values.keys(), KEYS, row.where)
        row.note("unknown key", f"{shown(key)} is not read")
        seen.add(key)
    id = _id(row)
    text, words, spans = _words(row, splitter)
    tags = _tags(row, text, words, spans)
    note_words(row.quirks, row.path, [row.line] * len(words), words, tags)
    return Post(
        id=id,
        words=words,
        text=text,
        spans=spans,
        tags=tags,
        images=_images(row),
        origin=row.where,
    )


def _images(row: _Row) -> tuple[PostImage, ...]:
    """The images of a row with their captions and relations; at least one, of nothing."""
    given = {key: row.values.get(key) for key in SHOWN}
    listed = {key: value for key, value in given.items() if isinstance(value, list)}
    count = max(map(len, listed.values()), default=1) or 1
    if count > MOST_IMAGES:
        raise row.refuse(f"{count} images", f"{MOST_IMAGES} at most")
    for key, value in given.items():
        if key not in listed:
            listed[key] = [value, *[None] * (count - 1)]
        elif len(listed[key]) not in (0, count):
            found = f"{key} as a list of {len(listed[key])} beside one of {count}"
            raise row.refuse(found, "lists of the same length, an entry an image")
    empty = [None] * count
    each = zip(*(listed[key] or empty for key in given), strict=True)
    return tuple(
        PostImage(
            _image(row, image),
            row.string("caption", caption) or None,
            _relation(row, relation),
            image_text=row.string("image_text", written) or None,
        )
        for image, caption, relation, written in each
    )


def _id(row: _Row) -> str:
    id = row.values.get("id")
    if isinstance(id, int) and not isinstance(id, bool):
        return str(id)
    if not isinstance(id, str) or not id:
        found = f"id {shown(id)}" if "id" in row.values else "no id"
        raise row.refuse(found, "id as a string", 'give each row its own "id"')
    return row.clean(id)


def _words(
    row: _Row, splitter: WordSplitter
) -> tuple[str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Text, words and the span of each word in the text."""
    text, words = row.text("text"), row.texts("tokens")
    if text is None and words is None:
        raise row.refuse("neither text nor tokens", "at least one of them")
    if text is None:
        post = Post.from_words("", words or ())
        return post.text, post.words, post.spans
    if words is None:
        spans = _cut(row, splitter.split(text))
        return text, tuple(text[start:end] for start, end in spans), tuple(spans)
    aligned = align(words, text)
    if len(aligned) < len(words):
        lost = len(aligned)
        found = f"token {lost + 1}, {shown(words[lost])}, not in the text behind the one before"
        raise row.refuse(found, "tokens that occur in the text, in order", "leave one of both out")
    edges = [0, *(offset for span in aligned for offset in span), len(text)]
    if any(text[end:start].strip() for end, start in list(pairwise(edges))[::2]):
        row.note("text between tokens", "belongs to no token, so it is never tagged")
    return text, words, tuple(aligned)


def _cut(row: _Row, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The words of a text, cut further where an entity begins or ends inside one."""
    given = row.values.get("entities")
    entities = given if isinstance(given, list) else []  # what is wrong with them, _entities says
    offsets = [e.get(key) for e in entities if isinstance(e, dict) for key in ("start", "end")]
    edges = sorted({edge for edge in offsets if type(edge) is int})
    cut: list[tuple[int, int]] = []
    for start, end in spans:
        inside = [edge for edge in edges if start < edge < end]
        cut += pairwise([start, *inside, end])
        if inside:
            row.note(CUT_WORD, "the word is cut at the entity's edge")
    return cut


def _tags(
    row: _Row, text: str, words: tuple[str, ...], spans: tuple[tuple[int, int], ...]
) -> tuple[str, ...] | None:
    """Tags as given, or as the entities tell; both at once have to agree."""
    given = row.texts("tags")
    if given is not None:
        if len(given) != len(words):
            raise row.refuse(f"{len(given)} tags for {len(words)} words", "one tag a word")
        if wrong := [tag for tag in given if not is_tag(tag)]:
            raise row.refuse(f"the tag {shown(wrong[0])}", "O, B-<type> or I-<type>")
        if any(normalise(tag) != tag for tag in given):
            row.note("OTHER for MISC", "read as MISC")
        given = tuple(normalise(tag) for tag in given)
    if row.values.get("entities") is None:
        return given
    entities = _entities(row, text, spans)
    if given is None:
        return tuple(tags_of(entities, len(words)))
    if sorted(entities) not in (sorted(strict_spans(given)), sorted(lenient_spans(given))):
        raise row.refuse("entities that differ from the tags", "one of the two, or both alike")
    return given


def _entities(row: _Row, text: str, spans: tuple[tuple[int, int], ...]) -> list[Span]:
    """The entities of a row, their character offsets turned into words."""
    given = row.values["entities"]
    if not isinstance(given, list):
        raise row.refuse(f"entities {shown(given)}", 'a list of {"start", "end", "label"}')
    # Empty words are left out: they begin and end nothing.
    first = {start: i for i, (start, end) in enumerate(spans) if start < end}
    last = {end: i for i, (start, end) in enumerate(spans) if start < end}
    found: list[Span] = []
    for entity in given:
        start, end, label = _entity(row, entity, text)
        if start not in first or end not in last:
            raise row.refuse(
                f"the entity {shown(text[start:end])} at {start} to {end}, which cuts a word",
                "entities that begin and end with a word",
                "fix the offsets, which count characters, or give the words as tokens",
            )
        found.append((label, first[start], last[end] + 1))
    for (_, _, end), (_, start, _) in pairwise(sorted(found, key=lambda span: span[1:])):
        if start < end:
            raise row.refuse("two entities that overlap", "each word in one entity at most")
    return found


def _entity(row: _Row, entity: object, text: str) -> tuple[int, int, str]:
    keys = ("start", "end", "label")
    start, end, label = (entity.get(k) for k in keys) if isinstance(entity, dict) else (None,) * 3
    if not (
        type(start) is int
        and type(end) is int
        and isinstance(label, str)
        and is_tag("B-" + label)
        and 0 <= start < end <= len(text)
    ):
        expected = f'{{"start", "end", "label"}} with offsets from 0 to {len(text)}'
        raise row.refuse(f"the entity {shown(entity)}", expected)
    if normalise_label(label) != label:
        row.note("OTHER for MISC", "read as MISC")
    return start, end, normalise_label(label)


def _relation(row: _Row, value: Any) -> float | None:
    if isinstance(value, str):
        raise row.refuse(f"the relation {shown(value)}", "a number, without quotes")
    return None if value is None else relation_of(value, row.where)


def _image(row: _Row, image: Any) -> Path | bytes | None:
    if isinstance(image, dict) and image.keys() == {"bytes", "path"}:  # as `datasets` writes it
        held = image["bytes"]
        if held is not None and not isinstance(held, bytes):
            raise row.refuse(f"image bytes {shown(held)}", "bytes, as Parquet has them")
        image = image["path"] if held is None else held
    if image == "":
        row.note("empty image", "read as no image")
        return None
    if image is None or isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise row.refuse(f"image {shown(image)}", "image as a path relative to the file")
    return row.path.parent / safe_relative(row.clean(image), row.where)
