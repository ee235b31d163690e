"""Rows as other tools write them, told by the shape of their values: tags are a list of texts as
long as that of the words, entities a list of offsets with a label. What is not read but looks like
gold or an image is told apart from the rest (`looks_like`), so that nothing is lost silently."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias, TypeGuard

from rpbert.data.labels import is_tag
from rpbert.data.reading import IMAGE_SUFFIXES, Values
from rpbert.storage.writing import stays_below

Names: TypeAlias = Mapping[str, Sequence[str]]
"""By column of numbers, the class that each number stands for."""

SKIP = "why there is no post"
"""The key of a row that its tool says is none."""
_TAG_KEYS = ("ner_tags", "tags", "ner", "ner_labels", "labels", "label")
_ENTITY_KEYS = ("spans", "label", "labels", "entities", "ents")
GOLD_KEYS = frozenset((*_TAG_KEYS, *_ENTITY_KEYS, "annotations", "relations"))
FOREIGN = GOLD_KEYS | {"data", "words", "answer"}
"""Keys of other tools that are looked at."""
_IMAGE_KEY = re.compile("image|img|photo|picture")
_LETTERS = "BIEMSLUW"


def own_row(row: Values, names: Names | None = None) -> tuple[str, Values]:
    """The key that tells a row of another tool, empty for a row of this package, and the row with
    the keys of this package."""
    for key, classes in (names or {}).items():
        if isinstance(numbers := row.get(key), list):
            row = {**row, key: [_class_name(number, classes) for number in numbers]}
    tags, entities, words = row.get("tags"), row.get("entities"), row.get("tokens")
    if (_holds(entities, dict) and "start" in entities[0]) or _holds(tags, str):
        return "", row
    if isinstance(row.get("data"), dict):
        return "data", _task(row)
    if "spans" in row and row.get("answer", "accept") != "accept":
        return "answer", {SKIP: f"its answer is {row['answer']!a:.20}"}
    words = row.get("words") if words is None else words
    if _holds(words, str) and not entities:
        for key in _TAG_KEYS:
            if _holds(tags := row.get(key), str) and len(tags) == len(words):
                return key, {**_without(row, key, "words"), "tokens": words, "tags": tags}
    text = row.get("text", row.get("data"))
    for key in dict.fromkeys((*_ENTITY_KEYS, *row)) if isinstance(text, str) else ():
        spans = _spans(row.get(key))
        # Under any other key, and where there are none, they have to be what only a tool writes.
        known = key in _ENTITY_KEYS if key != "entities" else spans != []
        if spans is not None and (known or (spans and all("labels" in of for of in row[key]))):
            own = {**_without(row, key, "data"), "text": text, "entities": spans}
            if _holds(words, dict):
                own["tokens"] = [_word(token, text) for token in words]
            return key, own
    return "", row


def _without(row: Values, *keys: str) -> Values:
    return {key: value for key, value in row.items() if key not in keys}


def _word(token: Values, text: str) -> object:
    """The text of a token, which spaCy gives by its offsets alone."""
    start, end = token.get("start"), token.get("end")
    return token.get("text", text[start:end] if type(start) is type(end) is int else None)


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


def _task(row: Values) -> Values:
    """A task of Label Studio: the text under `data`, regions in the first annotation that holds."""
    data, annotations = row["data"], row.get("annotations")
    texts = [value for value in data.values() if isinstance(value, str)]
    found = {"id": row.get("id"), "text": data.get("text", texts[0] if texts else None)}
    image = data.get("image")
    if isinstance(image, str):
        held = image.rpartition("?d=")[2]  # as local files are served
        found["image" if stays_below(held) and "://" not in held else "data.image"] = held
    of_people = annotations if isinstance(annotations, list) else []
    kept = [of for of in of_people if isinstance(of, dict) and not of.get("was_cancelled")]
    if kept:
        results = kept[0].get("result") or []
        values = [of.get("value") for of in results if isinstance(of, dict)]
        found["entities"] = _spans([of for of in values if isinstance(of, dict) and "start" in of])
    return found
