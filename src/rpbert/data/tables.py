"""Posts from rows: JSON lines, arrays and Parquet, one after the other, never all at once.
A row has ``id``, ``text`` and/or ``tokens``, and optionally ``image``, ``tags`` or ``entities``,
``relation``, ``caption``, ``image_text`` and ``knowledge``; null stands for absent. Of a post with
several images the last four and ``image`` are lists of the same length. Rows of other tools get
these keys by `rpbert.data.formats`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, TypeAlias

from rpbert.data import labels
from rpbert.data.formats import SKIP, Names, class_names, looks_like, own_row
from rpbert.data.parquet import class_features, parquet_rows
from rpbert.data.reading import (
    LINE_LIMIT,
    SILENT,
    ReadLog,
    Row,
    Values,
    image_below,
    lines_of,
    misspelt,
    note_words,
    quoted,
    relation_of,
)
from rpbert.data.words import WordSplitter, align
from rpbert.errors import InputError, counted, reason_of
from rpbert.types import TEXTS, Post, PostImage

TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
ARRAY_LIMIT = 4 * LINE_LIMIT
"""Bytes of a ``.json`` file that is one array, which is held as a whole."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_OF_IMAGES = ("image", "relation", *TEXTS)
KEYS = frozenset(("id", "text", "tokens", "tags", "entities", *_OF_IMAGES))
GOLD_ONLY = KEYS - {*_OF_IMAGES}
NO_GOLD = KEYS - {"tags", "entities", "relation"}
"""What tagging reads: gold that cannot be used must not stop it."""
# What a value of a key is, or what its list holds; others hold strings.
_HELD: dict[str, Any] = {"relation": (int, float), "entities": dict}
MAX_IMAGES = 16  # images of a post; a tweet has 4 at most
CUT_WORD = "entity inside a word"
"""The quirk of a raw text whose words the gold entities cut further than the splitter would."""

Keys: TypeAlias = frozenset[str]


def read_table(
    path: Path, splitter: WordSplitter, log: ReadLog = SILENT, keys: Keys = KEYS
) -> Iterator[Post]:
    """Posts of a file of rows, of which only `keys` are read."""
    described = path.parent / "dataset_info.json"
    if path.suffix == ".parquet":
        names = class_names(class_features(path))
        rows = parquet_rows(path, log, KEYS, keys)
    else:
        is_there = described.is_file()
        names = class_names(json_object(described.read_text(), described)) if is_there else {}
        rows = _array_rows(path) if _is_array(path) else _json_rows(path, log)
    return posts_of(rows, path, splitter, log, keys, names)


def posts_of(
    rows: Iterable[Row],
    path: Path,
    splitter: WordSplitter,
    log: ReadLog = SILENT,
    keys: Keys = KEYS,
    names: Names | None = None,
) -> Iterator[Post]:
    """The posts of rows without fault; an image's path is relative to `path`, and `names` are those
    of numbered tags. At the end the formats of other tools are told, and what is lost."""
    noted: set[str] = set()  # unknown keys
    formats, unread, shown = Counter[str](), Counter[tuple[str, str]](), False
    for place, values_of in rows:
        try:
            if (given := values_of()) is None:
                continue
            format, own = own_row(given, names)
            formats[format] += 1
            line, *lines = place if isinstance(place, list) else [place]
            row = _Row({k: v for k, v in own.items() if k in keys}, path, line, lines, log)
            if SKIP in own:
                row.note("no post", str(own[SKIP]))
                continue
            _note_unread(row, own, keys, noted, unread)
            post = _post(row, splitter, str(line) if format else None)
            shown = shown or "image" in row.values
        except InputError as fault:
            log.fault(fault)
        else:
            yield post
    for format, count in formats.items():
        if format:
            log.tell(f"{path.name}: {counted(count, 'row')} of another tool, told by {format}")
    for (key, what), count in unread.items():
        expected = "entities or tags" if what == "gold" else "image"
        none = "; no row has an image" if what != "gold" and not shown else ""
        found = f"{key} looks like {what} in {counted(count, 'row')} and is not read"
        log.tell(f"{path.name}: {found}; expected {expected}{none}")


def _note_unread(
    row: _Row, own: Values, keys: Keys, noted: set[str], unread: Counter[tuple[str, str]]
) -> None:
    """Note what is not read, and count what looks like gold or an image; a slip is refused."""
    for key in sorted(map(str, own.keys() - KEYS)):
        value = own.get(key)
        if key not in noted:
            near = misspelt(key, keys - own.keys()) if value else None
            item = value[0] if isinstance(value, list) and value else value
            if near and isinstance(item, _HELD.get(near, str)):
                hint = "rename it; a name unlike any that is read is passed over"
                raise row.refuse(f"the key {quoted(key)}", near, hint)
            row.note("unknown key", f"{quoted(key)} is not read")
            noted.add(key)
        what = looks_like(key, own)
        unread[key, what] += what == "an image" or (what == "gold" and "tags" in keys)
    for pair in [pair for pair, count in unread.items() if not count]:
        del unread[pair]


def post_of_values(values: Values, path: Path, line: int, splitter: WordSplitter) -> Post:
    """The post of one row's values, as a file would hold them."""
    return next(posts_of([(line, lambda: values)], path, splitter))


def json_object(text: str, where: object) -> dict[str, Any]:
    """The JSON object that a text holds; of a pair, as spaCy has them, with the text as its key."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "out of range"
        found = f"no JSON ({reason}): {quoted(text)}"
        raise InputError(where, found, "one JSON object") from error
    return _as_row(values, where)


def _as_row(values: Any, where: object) -> dict[str, Any]:
    match values:
        case [str(text), {"entities": _} as others]:
            return {**others, "text": text}
        case dict():
            return values
    raise InputError(where, quoted(values), "one JSON object")


def _json_rows(path: Path, log: ReadLog) -> Iterator[Row]:
    for number, line in lines_of(path, log):
        if line.strip():
            yield number, partial(json_object, line, f"{path}:{number}")
        else:
            log.note(path, number, "blank line", "skipped")


def _is_array(path: Path) -> bool:
    """Whether a ``.json`` file is one array; else it holds an object a line."""
    with path.open("rb") as file:
        return path.suffix == ".json" and file.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"["


def _array_rows(path: Path) -> Iterator[Row]:
    if path.stat().st_size > ARRAY_LIMIT:
        found = f"an array of more than {ARRAY_LIMIT:,} bytes"
        raise InputError(path, found, "a smaller one, or an object a line in a .jsonl file")
    try:
        items = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"no JSON ({reason_of(error)})", "one JSON array") from None
    for number, item in enumerate(items, start=1):
        yield number, partial(_as_row, item, f"{path}:{number}")


@dataclass(frozen=True, slots=True)
class _Row:
    """The values of one row, with the place that messages name."""

    values: Values
    path: Path
    line: int | str
    word_lines: list[int | str]  # where each word has its own
    log: ReadLog

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def lines(self, count: int) -> list[int | str]:
        """The line of each of so many words."""
        return self.word_lines or [self.line] * count

    def refuse(self, found: str, expected: str, hint: str = "") -> InputError:
        return InputError(self.where, found, expected, hint)

    def note(self, kind: str, detail: str, line: int | str | None = None) -> None:
        self.log.note(self.path, self.line if line is None else line, kind, detail)

    def clean(self, text: str) -> str:
        """A text with each lone surrogate, which no encoder takes, as U+FFFD; offsets stay."""
        clean, count = _SURROGATE.subn("\ufffd", text)
        if count:
            self.note("lone surrogate", f"{count} replaced by U+FFFD")
        return clean

    def string(self, key: str, value: object) -> str | None:
        """A value of `key` as a string, None where absent."""
        if value is not None and not isinstance(value, str):
            raise self.refuse(f"{key} {quoted(value)}", f"{key} as a string")
        return None if value is None else self.clean(value)

    def strings(self, key: str) -> tuple[str, ...] | None:
        """The list of strings under `key`, None where absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(f"{key} {quoted(value)}", f"{key} as a list of strings")
        return tuple(self.clean(item) for item in value)


def _post(row: _Row, splitter: WordSplitter, unnamed: str | None) -> Post:
    """The post of a row, whose id is `unnamed` where it has none and may do without."""
    id = row.values.get("id")
    id = unnamed if id is None else str(id) if type(id) is int else id
    if not isinstance(id, str) or not id:
        found = f"id {quoted(id)}" if "id" in row.values else "no id"
        raise row.refuse(found, "id as a string", 'give each row its own "id"')
    id, post = row.clean(id), _words(row, splitter)
    tags = _tags(row, post)
    if not post.words:
        row.note("post without words", f"id {quoted(id)}; kept")
    note_words(row.log, row.path, row.lines(len(post.words)), post.words, tags or ())
    return replace(post, id=id, tags=tags, images=_images(row), origin=row.where)


def _words(row: _Row, splitter: WordSplitter) -> Post:
    """A post of the row's text and words."""
    text, words = row.string("text", row.values.get("text")), row.strings("tokens")
    if text is None:
        if words is None:
            raise row.refuse("neither text nor tokens", "at least one of them")
        return Post.from_words("", words)
    if words is None:
        spans = _cut(row, splitter.split(text))
        return Post("", splitter.words(text, spans), text, tuple(spans))
    spans = align(words, text)
    if len(spans) < len(words):
        lost = len(spans)
        found = f"token {lost + 1}, {quoted(words[lost])}, not in the text behind the one before"
        raise row.refuse(found, "tokens that occur in the text, in order", "leave one of both out")
    edges = pairwise([(0, 0), *spans, (len(text), len(text))])
    if any(text[end:start].strip() for (_, end), (start, _) in edges):
        row.note("text between tokens", "belongs to no token, so it is never tagged")
    return Post("", words, text, tuple(spans))


def _cut(row: _Row, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The words of a text, cut further where an entity begins or ends inside one."""
    given = row.values.get("entities")
    entities = given if isinstance(given, list) else []  # `_entities` refuses what is wrong
    offsets = [e.get(key) for e in entities if isinstance(e, dict) for key in ("start", "end")]
    edges = sorted({edge for edge in offsets if type(edge) is int})
    cut: list[tuple[int, int]] = []
    for start, end in spans:
        inside = [edge for edge in edges if start < edge < end]
        cut += pairwise([start, *inside, end])
        if inside:
            row.note(CUT_WORD, "the word is cut at the entity's edge")
    return cut


def _tags(row: _Row, post: Post) -> tuple[str, ...] | None:
    """Tags as given, or as the entities tell; both at once have to agree."""
    given, reading = row.strings("tags"), row.log.tags
    if given is not None:
        if len(given) != len(post.words):
            raise row.refuse(f"{len(given)} tags for {len(post.words)} words", "one tag a word")
        for line, tag in zip(row.lines(len(given)), given, strict=True):
            if not reading.is_tag(tag):
                hint = "of several columns, data.tag_column is theirs" if row.word_lines else ""
                where, expected = f"{row.path}:{line}", "O, B-<type> or I-<type>"
                raise InputError(where, f"the tag {quoted(tag)}", expected, hint)
            if reading.label(tag[2:]) != tag[2:]:
                row.note("OTHER for MISC", "read as MISC", line)
        given = reading.tags(given)
    if row.values.get("entities") is None or (given and reading.scheme is None):
        return given
    entities = _entities(row, post)
    if given is None:
        return tuple(labels.tags_of(entities, len(post.words)))
    readings = (labels.strict_spans(given), labels.lenient_spans(given))
    if sorted(entities) not in map(sorted, readings):
        raise row.refuse("entities that differ from the tags", "one of the two, or both alike")
    return given


def _entities(row: _Row, post: Post) -> list[labels.Span]:
    """The entities of a row, their character offsets turned into words."""
    given = row.values["entities"]
    if not isinstance(given, list):
        raise row.refuse(f"entities {quoted(given)}", 'a list of {"start", "end", "label"}')
    # Empty words are left out: they begin and end nothing.
    first = {start: i for i, (start, end) in enumerate(post.spans) if start < end}
    last = {end: i for i, (start, end) in enumerate(post.spans) if start < end}
    spans: list[labels.Span] = []
    for entity in given:
        label, start, end = _entity(row, entity, post.text)
        if start not in first or end not in last:
            found = f"the entity {quoted(post.text[start:end])} at {start} to {end}"
            hint = "fix the offsets, which count characters, or give the words as tokens"
            expected = "entities that begin and end with a word"
            raise row.refuse(f"{found}, which cuts a word", expected, hint)
        spans.append((label, first[start], last[end] + 1))
    once = sorted(set(spans), key=lambda span: span[1:])
    if len(once) < len(spans):
        row.note("entity given twice", "read once")
    for (_, _, end), (_, start, _) in pairwise(once):
        if start < end:
            raise row.refuse("two entities that overlap", "each word in one entity at most")
    return once


def _entity(row: _Row, entity: object, text: str) -> labels.Span:
    """The label of an entity and its offsets in a text, without white space at its edges."""
    values = entity if isinstance(entity, dict) else {}
    label, start, end = (values.get(key) for key in ("label", "start", "end"))
    if isinstance(label, str) and not labels.is_tag("B-" + label):
        expected = "a name without white space at its edges"
        raise row.refuse(f"the label {quoted(label)}", expected)
    if (
        not isinstance(label, str)
        or not type(start) is type(end) is int
        or not 0 <= start < end <= len(text)
    ):
        expected = f'{{"start", "end", "label"}} with offsets from 0 to {len(text)}'
        raise row.refuse(f"the entity {quoted(entity)}", expected)
    inside, said = text[start:end].strip(), values.get("text")
    if isinstance(said, str) and row.clean(said).strip() != inside:
        found = f"the entity {quoted(said)} where the text has {quoted(inside)}"
        raise row.refuse(found, "offsets that count the characters of its text")
    if inside and len(inside) < end - start:
        row.note("white space at an entity's edge", "left out of it")
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end = start + len(inside)
    name = row.log.tags.label(label)
    if name != label:
        row.note("OTHER for MISC", "read as MISC")
    return name, start, end


def _images(row: _Row) -> tuple[PostImage, ...]:
    """The images of a row with their captions and relations; at least one, of nothing."""
    given = {key: row.values.get(key) for key in _OF_IMAGES}
    lists = {key: value for key, value in given.items() if isinstance(value, list)}
    count = max(map(len, lists.values()), default=1)
    if count > MAX_IMAGES:
        raise row.refuse(f"{count} images", f"{MAX_IMAGES} at most")
    for key, value in lists.items():
        if len(value) not in (0, count):
            found = f"{key} as a list of {len(value)} beside one of {count}"
            raise row.refuse(found, "lists of the same length, an entry an image")
    columns = [value if isinstance(value, list) else [value] for value in given.values()]
    images = tuple(_image(row, *values) for values in zip_longest(*columns))
    return images or (PostImage(),)


def _image(row: _Row, image: Any, relation: Any, *texts: Any) -> PostImage:
    if isinstance(relation, str):
        raise row.refuse(f"the relation {quoted(relation)}", "a number, without quotes")
    known = None if relation is None else relation_of(relation, row.where)
    every: dict[str, Any] = {
        name: row.string(name, text) or None for name, text in zip(TEXTS, texts, strict=True)
    }
    return PostImage(_source(row, image), relation=known, **every)


def _source(row: _Row, image: Any) -> Path | bytes | None:
    if isinstance(image, dict) and image.keys() == {"bytes", "path"}:  # as `datasets` writes it
        held = image["bytes"]
        if held is not None and not isinstance(held, bytes):
            raise row.refuse(f"image bytes {quoted(held)}", "bytes, as Parquet has them")
        image = image["path"] if held is None else held
    if image == "":
        row.note("empty image", "read as no image")
        return None
    if image is None or isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise row.refuse(f"image {quoted(image)}", "image as a path relative to the file")
    return image_below(row.path.parent, row.clean(image), row.where)
