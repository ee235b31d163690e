"""What pydantic refuses, as one line of what was found and what is expected.

Pydantic's own wording speaks of Python's types and of how it compares; people read this instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rpbert.errors import InputError, did_you_mean

Fault: TypeAlias = "Mapping[str, Any]"
"""One entry of `ValidationError.errors`."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "string_too_long": "{max_length} characters at most",
    "list_type": "a list",
    "path_type": "a path",
    "model_type": "a block of settings",
    "model_attributes_type": "a block of settings",
    "dict_type": "a block of settings",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def first_fault(error: ValidationError) -> Fault:
    """The fault to tell of: a misspelt key is also a missing one, and is what the user can see."""
    faults: Sequence[Any] = error.errors(include_url=False)
    chosen: Fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    return chosen


def key_of(kind: type[BaseModel], fault: Fault) -> str:
    """The key at fault, with its blocks: ``training.epochs``."""
    return ".".join(map(str, _path(kind, fault)))


def as_input_error(kind: type[BaseModel], error: ValidationError, where: object) -> InputError:
    """The first fault of what was to be a `kind`, as one line."""
    fault = first_fault(error)
    path = _path(kind, fault)
    key = ".".join(map(str, path))[:80] or "settings"
    if fault["type"] == "extra_forbidden":
        known = sorted(_keys(_options(kind, path[:-1])))
        hint = did_you_mean(path[-1], known)
        return InputError(where, f"unknown key {key}", f"one of {', '.join(known)}", hint)
    if fault["type"] == "missing":
        return InputError(where, f"no key {key}", "a value for it")
    if fault["type"] == "value_error":
        found, expected = fault["ctx"]["error"].args
        return InputError(where, f"{key} with {found}", expected)
    # Where one of several kinds of value would do, each of them has a fault of its own; of a kind
    # that the value is of, only what else is wrong with it.
    same = [f for f in error.errors(include_url=False) if _path(kind, f) == path]
    near = [f for f in same if not f["type"].endswith(("_type", "_parsing", "_from_float"))]
    expected = " or ".join(dict.fromkeys(map(_expected, near or same)))
    names = re.findall(r"'(\w+)'", expected) if fault["type"] == "literal_error" else ()
    hint = did_you_mean(fault["input"], names)
    return InputError(where, f"{key} = {fault['input']!a:.80}", expected, hint)


def _expected(fault: Fault) -> str:
    known = _EXPECTED.get(fault["type"])
    if known is None:
        return str(fault["msg"]).removeprefix("Input should be ")
    return known.format(**fault.get("ctx", {}))


def _path(kind: type[BaseModel], fault: Fault) -> tuple[str | int, ...]:
    """Where the fault is, without what pydantic adds for each kind of value that would do."""
    place: tuple[str | int, ...] = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return place
    for end, part in enumerate(place):
        options = _options(kind, place[:end])
        if len(options) > 1 and part not in _keys(options):
            return place[:end]
    return place


def _options(kind: type[BaseModel], path: Sequence[str | int]) -> tuple[Any, ...]:
    """The kinds of value that may stand at a path; none within a list or mapping."""
    options: tuple[Any, ...] = (kind,)
    for part in path:
        fields = dict(_fields(options))
        if part not in fields:
            return ()
        annotation = fields[str(part)].annotation
        union = get_origin(annotation) in (Union, UnionType)
        every = get_args(annotation) if union else (annotation,)
        options = tuple(option for option in every if option is not type(None))
    return options


def _keys(options: Sequence[Any]) -> list[str]:
    return [key for key, _ in _fields(options)]


def _fields(options: Sequence[Any]) -> list[tuple[str, FieldInfo]]:
    """Keys and fields of those kinds of value that are settings."""
    blocks = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
    return [(f.alias or name, f) for block in blocks for name, f in block.model_fields.items()]
