"""Rows as other tools write them. `FORMATS` has, by name, a pure function that gives such a row the
keys of this package, and None for a row of another shape. What is not read but looks like gold or
an image is told apart from the rest (`looks_like`), so that nothing is lost silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias, TypeGuard

from rpbert.data.labels import is_tag
from rpbert.data.reading import IMAGE_SUFFIXES
from rpbert.storage.writing import stays_below

Values: TypeAlias = Mapping[str, Any]
Names: TypeAlias = Mapping[str, Sequence[str]]
"""By column of numbers, the class that each number stands for."""

SKIP = "why there is no post"
"""The key of a row that its tool says is none."""
_TAG_KEYS = ("ner_tags", "tags", "ner", "ner_labels", "labels", "label")
GOLD_KEYS = frozenset((*_TAG_KEYS, "entities", "spans", "ents", "annotations", "relations"))
FOREIGN = GOLD_KEYS | {"data", "words", "answer"}
"""Keys of other tools that are looked at."""
_IMAGE_KEY = re.compile("image|img|photo|picture")
_LETTERS = "BIEMSLUW"


def own_row(row: Values, names: Names | None = None) -> tuple[str, Values]:
    """The format of a row, empty for that of this package, and the row with its keys."""
    for key, classes in (names or {}).items():
        if isinstance(numbers := row.get(key), list):
            row = _with(row, key, **{key: [_class_name(number, classes) for number in numbers]})
    tags, entities = row.get("tags"), row.get("entities")
    if (_holds(entities, dict) and "start" in entities[0]) or _holds(tags, str):
        return "", row
    found = ((name, read(row)) for name, read in FORMATS.items())
    return next(((name, own) for name, own in found if own is not None), ("", row))


def _class_name(number: object, classes: Sequence[str]) -> object:
    if type(number) is not int:
        return number
    return classes[number] if 0 <= number < len(classes) else f"class {number}"


def _holds(value: Any, kind: type) -> TypeGuard[list[Any]]:
    """Whether a value is a list of something of that kind alone."""
    return isinstance(value, list) and value != [] and all(isinstance(of, kind) for of in value)


def looks_like(key: str, row: Values) -> str:
    """``gold`` or ``an image`` for a value that looks like one, else empty."""
    value, words = row[key], row.get("tokens")
    name = isinstance(value, str) and PurePath(value).suffix.lower() in IMAGE_SUFFIXES
    if value and (name or (_IMAGE_KEY.search(key.lower()) and not isinstance(value, int | float))):
        return "an image"
    if not value or not isinstance(value, list | dict):
        return ""
    is_row = _holds(words, str) and len(words) == len(value) and _holds(value, str)
    tags = is_row and all(is_tag(tag, _LETTERS) for tag in value)
    return "gold" if key.lower() in GOLD_KEYS or tags or _spans(value) else ""


def class_names(info: Any) -> dict[str, list[str]]:
    """The names of classes by column, of what `datasets` writes of a data set's features."""
    found = {}
    features = info.get("features") if isinstance(info, dict) else None
    for column, feature in features.items() if isinstance(features, dict) else ():
        of_item = feature.get("feature", feature) if isinstance(feature, dict) else feature
        of_item = of_item[0] if isinstance(of_item, list) and of_item else of_item
        names = of_item.get("names") if isinstance(of_item, dict) else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[str(column)] = names
    return found


def _spans(value: object) -> list[dict[str, Any]] | None:
    """A list of entities as ``{"start", "end", "label"}``; None for anything else."""
    if not isinstance(value, list):
        return None
    found = []
    for item in value:
        if isinstance(item, dict):
            start = item.get("start", item.get("start_offset"))
            end = item.get("end", item.get("end_offset"))
            label = item.get("label") or item.get("labels")
            label = label[0] if isinstance(label, list) and len(label) == 1 else label
        elif isinstance(item, list) and len(item) == 3:
            start, end, label = item
        else:
            return None
        if type(start) is not int or type(end) is not int or label is None:
            return None
        text = {"text": item["text"]} if isinstance(item, dict) and "text" in item else {}
        found.append({"start": start, "end": end, "label": label, **text})
    return found


def _with(row: Values, without: str, **given: Any) -> Values:
    return {**{key: value for key, value in row.items() if key != without}, **given}


def _label_studio(row: Values) -> Values | None:
    """Tasks of ``JSON``: the text under `data`, regions in the first annotation that holds."""
    data, annotations = row.get("data"), row.get("annotations", [])
    if not isinstance(data, dict) or not isinstance(annotations, list):
        return None
    texts = [value for value in data.values() if isinstance(value, str)]
    found = {"id": row.get("id"), "text": data.get("text", texts[0] if texts else None)}
    image = data.get("image")
    if isinstance(image, str):
        held = image.rpartition("?d=")[2]  # as local files are served
        found["image" if stays_below(held) and "://" not in held else "data.image"] = held
    kept = [of for of in annotations if isinstance(of, dict) and not of.get("was_cancelled")]
    if kept:
        results = kept[0].get("result") or []
        values = [of.get("value") for of in results if isinstance(of, dict)]
        found["entities"] = _spans([of for of in values if isinstance(of, dict) and "start" in of])
    return found


def _json_min(row: Values) -> Values | None:
    """Regions under the name of the control, each with a list of labels."""
    for key, value in row.items():
        spans = _spans(value)
        if spans and all(isinstance(of, dict) and "labels" in of for of in value):
            return _with(row, key, entities=spans)
    return None


def _prodigy(row: Values) -> Values | None:
    """`spans`, and tokens with their offsets; what was not accepted is no post."""
    spans, tokens = _spans(row.get("spans")), row.get("tokens")
    if spans is None:
        return None
    if row.get("answer", "accept") != "accept":
        return {SKIP: f"its answer is {row['answer']!a:.20}"}
    own = _with(row, "spans", entities=spans)
    if _holds(tokens, dict):
        own = _with(own, "tokens", tokens=[token.get("text") for token in tokens])
    return own


def _doccano(row: Values) -> Values | None:
    """Triples under `label`, or entities with ``start_offset``; the text is also `data`."""
    for key in ("label", "labels", "entities"):
        spans = _spans(row.get(key)) if "tokens" not in row else None
        if spans is None or (key == "entities" and not _holds(row[key], dict)):
            continue
        text = row.get("text", row.get("data"))
        return _with(_with(row, key), "data", text=text, entities=spans)
    return None


def _spacy(row: Values) -> Values | None:
    """Triples under `entities`, or `ents` beside tokens that have only offsets."""
    spans = _spans(row.get("entities"))
    if spans:
        return _with(row, "entities", entities=spans)
    spans, text, tokens = _spans(row.get("ents")), row.get("text"), row.get("tokens")
    if spans is None or not isinstance(text, str):
        return None
    own = _with(row, "ents", entities=spans)
    places = _spans([{"label": "-", **of} for of in tokens]) if _holds(tokens, dict) else None
    return _with(own, "tokens", tokens=[text[of["start"] : of["end"]] for of in places or ()])


def _datasets(row: Values) -> Values | None:
    """A tag for each token; numbers have got the names of their classes before."""
    words = row.get("tokens", row.get("words"))
    if not _holds(words, str) or row.get("entities"):
        return None
    for key in _TAG_KEYS:
        if _holds(tags := row.get(key), str) and len(tags) == len(words):
            return _with(_with(row, key), "words", tokens=words, tags=tags)
    return None


FORMATS: dict[str, Callable[[Values], Values | None]] = {
    "Label Studio JSON": _label_studio,
    "Label Studio JSON-MIN": _json_min,
    "Prodigy": _prodigy,
    "doccano": _doccano,
    "spaCy": _spacy,
    "datasets": _datasets,
}
