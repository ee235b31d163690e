"""Posts from rows: JSON lines and Parquet, read one after the other, never all at once.
A row has ``id``, ``text`` and/or ``tokens``, and optionally ``image``, ``tags`` or ``entities``,
``relation``, ``caption``, ``image_text`` and ``knowledge``; null stands for absent. Of a post with
several images the last four and ``image`` are lists of the same length."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rpbert.data import labels
from rpbert.data.reading import (
    SILENT,
    ReadLog,
    lines_of,
    note_words,
    quoted,
    refuse_misspelt,
    relation_of,
    safe_relative,
)
from rpbert.data.words import WordSplitter, align
from rpbert.errors import InputError
from rpbert.types import TEXTS, Post, PostImage

if TYPE_CHECKING:
    import pyarrow

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_OF_IMAGES = ("image", "relation", *TEXTS)
KEYS = frozenset(("id", "text", "tokens", "tags", "entities", *_OF_IMAGES))
NO_GOLD = KEYS - {"tags", "entities", "relation"}
"""What tagging reads: gold that cannot be used must not stop it."""
MAX_IMAGES = 16  # images of a post; a tweet has 4 at most
CUT_WORD = "entity inside a word"
"""The quirk of a raw text whose words the gold entities cut further than the splitter would."""

Keys: TypeAlias = frozenset[str]
Values: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Iterable[tuple[int | str, Callable[[], Values | None]]]
"""The place of each row in its file, and what returns its values, or None where it is no row."""


def read_table(
    path: Path, splitter: WordSplitter, log: ReadLog = SILENT, keys: Keys = KEYS
) -> Iterator[Post]:
    """Posts of a ``.jsonl`` or ``.parquet`` file; of the known keys only `keys` are read."""
    rows = _parquet_rows(path, log, keys) if path.suffix == ".parquet" else _json_rows(path, log)
    return posts_of(rows, path, splitter, log, keys)


def posts_of(
    rows: Rows, path: Path, splitter: WordSplitter, log: ReadLog = SILENT, keys: Keys = KEYS
) -> Iterator[Post]:
    """The posts of rows without fault; an image's path is relative to `path`."""
    noted: set[str] = set()  # unknown keys
    for place, values_of in rows:
        try:
            if (given := values_of()) is None:
                continue
            values = {k: v for k, v in given.items() if k in keys or k not in KEYS}
            post = _post(_Row(values, path, place, log), splitter, noted)
        except InputError as fault:
            log.fault(fault)
        else:
            yield post


def post_of_values(values: Values, path: Path, line: int, splitter: WordSplitter) -> Post:
    """The post of one row's values, as a file would hold them."""
    return next(posts_of([(line, lambda: values)], path, splitter))


def json_object(text: str, where: object) -> dict[str, Any]:
    """The JSON object that a text holds."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "out of range"
        found = f"no JSON ({reason}): {quoted(text)}"
        raise InputError(where, found, "one JSON object") from error
    if not isinstance(values, dict):
        raise InputError(where, quoted(values), "one JSON object")
    return values


def _json_rows(path: Path, log: ReadLog) -> Rows:
    for number, line in lines_of(path, log):
        if line.strip():
            yield number, partial(json_object, line, f"{path}:{number}")
        else:
            log.note(path, number, "blank line", "skipped")


_PLAIN = re.compile(
    "null|bool|u?int(8|16|32|64)|halffloat|float|double|(large_)?(string|binary)|(string|binary)_view"
)
_ROWS = 64  # held at once; a row may carry the bytes of an image


def _parquet_rows(path: Path, log: ReadLog, keys: Keys) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Without a buffer, a whole column of a row group is read at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            columns = _columns(file.schema_arrow, path, log, keys)
            for batch in file.iter_batches(_ROWS, columns=columns):
                for scalars in zip(*batch.columns, strict=True):
                    number += 1
                    where = f"{path}:{number}"
                    yield number, partial(_python, batch.schema.names, scalars, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of names of columns, too
        found = f"no readable Parquet after row {number} ({quoted(str(error))})"
        raise InputError(path, found, "a Parquet file") from error


def _python(names: list[str], scalars: tuple[pyarrow.Scalar, ...], where: str) -> Values:
    try:
        return {name: scalar.as_py() for name, scalar in zip(names, scalars, strict=True)}
    except UnicodeDecodeError:
        raise InputError(where, "a string that is no UTF-8", "UTF-8 text") from None


def _columns(schema: pyarrow.Schema, path: Path, log: ReadLog, keys: Keys) -> list[str]:
    """The columns to read, all of them of plain types."""
    names = list(schema.names)
    for name in names:
        if name not in KEYS:
            refuse_misspelt(name, names, KEYS, path)
            log.note(path, 1, "unknown key", f"{quoted(name)} is not read")
    if "id" not in names or len(set(names)) < len(names):
        found = "a column twice" if "id" in names else "no column id"
        expected = "columns id, text and/or tokens, …"
        raise InputError(path, f"{found} among {quoted(names)}", expected)
    wanted = [name for name in names if name in keys]
    for name in wanted:
        if not _is_plain(kind := schema.field(name).type):
            found = f"the column {quoted(name)} of type {quoted(str(kind))}"
            raise InputError(path, found, "text, numbers, bytes, or lists or structs of them")
    return wanted


def _is_plain(kind: pyarrow.DataType) -> bool:
    """Whether a type is of JSON or bytes; extension types bring code, and Ray's loads pickles."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return _PLAIN.fullmatch(str(kind)) is not None


@dataclass(frozen=True, slots=True)
class _Row:
    """The values of one row, with the place that messages name."""

    values: Values
    path: Path
    line: int | str
    log: ReadLog

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def refuse(self, found: str, expected: str, hint: str = "") -> InputError:
        return InputError(self.where, found, expected, hint)

    def note(self, kind: str, detail: str) -> None:
        self.log.note(self.path, self.line, kind, detail)

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


def _post(row: _Row, splitter: WordSplitter, noted: set[str]) -> Post:
    for key in sorted(map(str, row.values.keys() - KEYS - noted)):
        refuse_misspelt(key, row.values.keys(), KEYS, row.where)
        row.note("unknown key", f"{quoted(key)} is not read")
        noted.add(key)
    id = row.values.get("id")
    id = str(id) if type(id) is int else id
    if not isinstance(id, str) or not id:
        found = f"id {quoted(id)}" if "id" in row.values else "no id"
        raise row.refuse(found, "id as a string", 'give each row its own "id"')
    id, post = row.clean(id), _words(row, splitter)
    tags = _tags(row, post)
    note_words(row.log, row.path, [row.line] * len(post.words), post.words, tags or ())
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
    given = row.strings("tags")
    if given is not None:
        if len(given) != len(post.words):
            raise row.refuse(f"{len(given)} tags for {len(post.words)} words", "one tag a word")
        if wrong := [tag for tag in given if not labels.is_tag(tag)]:
            raise row.refuse(f"the tag {quoted(wrong[0])}", "O, B-<type> or I-<type>")
        normal = tuple(map(labels.normalise, given))
        if normal != given:
            row.note("OTHER for MISC", "read as MISC")
        given = normal
    if row.values.get("entities") is None:
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
        label, start, end = _entity(row, entity, len(post.text))
        if start not in first or end not in last:
            found = f"the entity {quoted(post.text[start:end])} at {start} to {end}"
            hint = "fix the offsets, which count characters, or give the words as tokens"
            expected = "entities that begin and end with a word"
            raise row.refuse(f"{found}, which cuts a word", expected, hint)
        spans.append((label, first[start], last[end] + 1))
    for (_, _, end), (_, start, _) in pairwise(sorted(spans, key=lambda span: span[1:])):
        if start < end:
            raise row.refuse("two entities that overlap", "each word in one entity at most")
    return spans


def _entity(row: _Row, entity: object, length: int) -> labels.Span:
    """The label of an entity and its character offsets, in a text of `length`."""
    values = entity if isinstance(entity, dict) else {}
    label, start, end = (values.get(key) for key in ("label", "start", "end"))
    valid = isinstance(label, str) and labels.is_tag("B-" + label)
    if not valid or not type(start) is type(end) is int or not 0 <= start < end <= length:
        expected = f'{{"start", "end", "label"}} with offsets from 0 to {length}'
        raise row.refuse(f"the entity {quoted(entity)}", expected)
    name = labels.normalise_label(str(label))
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
    return row.path.parent / safe_relative(row.clean(image), row.where)
