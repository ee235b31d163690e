"""Settings from YAML and the command line; a fault is one line with file, key and what to type."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from rpbert.errors import InputError, did_you_mean, reason_of
from rpbert.storage.writing import written_whole

BYTE_LIMIT = 2**20
NODE_LIMIT = 100_000  # values with every alias written out: a few lines can stand for billions

CONFIGS = Path(__file__).parents[1] / "configs"  # known by name

Model = TypeVar("Model", bound=BaseModel)

_FILES = {"path", "relations", "word_vectors"}
_FILE_OR_HUB = {"pretrained", "start"}
_EXPECTED = {  # where pydantic's message speaks of Python
    "path_type": "a path",
    "model_type": "a block of settings",
    "model_attributes_type": "a block of settings",
    "dict_type": "a block of settings",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


class _Loader(yaml.SafeLoader):
    """Plain values; a key that occurs twice is a fault, and every fault has its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            found = f"{node.value!r:.60} is no {node.tag.rpartition(':')[2]} ({error!r:.60})"
            raise yaml.constructor.ConstructorError(None, None, found, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, str(key.value))
            if name in seen:
                found = f"the key {key.value!r:.60} a second time"
                raise yaml.constructor.ConstructorError(None, None, found, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: object) -> Any:
    """The value of a YAML document of plain values; anything else is an `InputError`."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > NODE_LIMIT:
            found = f"aliases that stand for more than {NODE_LIMIT:,} values"
            line = node.start_mark.line + 1
            raise InputError(f"{where}:{line}", found, "each value written out")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(place, f"broken YAML ({error.problem})", "YAML of plain values") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"the character {chr(int(error.character))!a}"
        raise InputError(f"{where}:{line}", found, "YAML of printable text") from None
    except RecursionError:
        place = f"{where}:{loader.line + 1}" if loader else where
        raise InputError(place, "YAML nested too deeply", "settings a few levels deep") from None


def _size(node: Any, known: dict[int, float]) -> float:
    """Values under a node with every alias written out; infinite for one within itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def config_file(name: str | Path) -> Path:
    """The file of settings: `name` itself, or that of a name in `CONFIGS`."""
    path, names = Path(name), sorted(file.stem for file in CONFIGS.glob("*.yaml"))
    if path.exists() or path.suffix or path.parts[1:]:
        return path
    if path.name not in names:
        expected = f"a YAML file, or one of {', '.join(names)}"
        raise InputError(path, "no settings of that name", expected, did_you_mean(name, names))
    return CONFIGS / f"{path.name}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, with paths that are relative to its folder made absolute.
    Raises InputError: no such file, or it holds anything else; the line names the place."""
    try:
        if (size := path.stat().st_size) > BYTE_LIMIT:
            raise InputError(path, f"{size:,} bytes", f"settings of at most {BYTE_LIMIT:,}")
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}"
        raise InputError(f"{path}:{line}", found, "text in UTF-8") from None
    except OSError as error:
        raise InputError(path, reason_of(error), "a readable YAML file of settings") from None
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise InputError(path, found, "a YAML mapping with model, data, training")
    return _anchored(values, path.parent)


def _anchored(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings whose relative paths start at `folder`; other names are those of a hub."""
    result = dict(given)
    for key, value in given.items():
        if isinstance(value, dict):
            result[key] = _anchored(value, folder)
        elif isinstance(value, str) and (
            key in _FILES or (key in _FILE_OR_HUB and (folder / value).is_dir())
        ):
            result[key] = os.path.abspath(folder / value)  # noqa: PTH100
    return result


def write_yaml(settings: BaseModel, path: Path) -> None:
    """Write settings with every default."""
    content = settings.model_dump(mode="json")
    with written_whole(path) as file:
        yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `base` with those of `over` in their place, key by key."""
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested else value
    return result


def parse_with_overrides(
    kind: type[Model], given: dict[str, Any], overrides: Sequence[str], where: object
) -> Model:
    """Settings of `kind` with some keys replaced, each as ``block.key=value``; see `parse`."""
    given = deepcopy(given)
    for line in overrides:
        name, equals, value = line.partition("=")
        if not equals or not name:
            raise InputError(repr(line), "no `=`", "key=value, such as training.epochs=3")
        *parents, last = name.split(".")
        target = given
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(repr(line), f"{parent} is a value", "a block of settings")
        target[last] = parse_yaml(value, repr(line))
    return parse(kind, given, where, {line.partition("=")[0] for line in overrides})


def parse(
    kind: type[Model],
    given: Mapping[str, Any],
    where: object,
    typed: Collection[str] = (),
    strict: bool | None = None,
) -> Model:
    """Validate `given` as settings of `kind`. Raises InputError: a key or value is not accepted;
    the line begins with `where`, or says that a key `typed` on the command line is at fault."""
    try:
        return kind.model_validate(given, strict=strict)
    except ValidationError as error:
        raise _fault(kind, error, where, typed) from None


def _fault(
    kind: type[BaseModel], error: ValidationError, where: object, typed: Collection[str]
) -> InputError:
    """The first fault as one line; a misspelt key is also a missing one, and goes first."""
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    unknown = fault["type"] == "extra_forbidden"
    path, known = _place(kind, fault["loc"], unknown)
    key = ".".join(map(str, path))
    if any(f"{key}.".startswith(f"{name}.") for name in typed) or (
        unknown and any(name.startswith(f"{key}.") for name in typed)
    ):
        where = "command line"
    key = key[:80] or "settings"
    if unknown:
        expected, hint = f"one of {', '.join(known)}", did_you_mean(path[-1], known)
        return InputError(where, f"unknown key {key}", expected, hint)
    if fault["type"] == "missing":
        return InputError(where, f"no key {key}", "a value for it", f"give {key}=VALUE")
    if fault["type"] == "value_error":
        found, expected = fault["ctx"]["error"].args
        return InputError(where, f"{key} with {found}", expected)
    # Where one of several kinds of value would do, each of them has a fault of its own.
    same = [other for other in faults if _place(kind, other["loc"], False)[0] == path]
    near = [other for other in same if not other["type"].endswith(("_type", "_parsing"))]
    expected = " or ".join(dict.fromkeys(map(_expected, near or same)))
    names = re.findall(r"'(\w+)'", expected) if fault["type"] == "literal_error" else ()
    found = f"{key} = {fault['input']!a:.80}"
    return InputError(where, found, expected, did_you_mean(fault["input"], names))


def _expected(fault: Mapping[str, Any]) -> str:
    if fault["type"] in _EXPECTED:
        return _EXPECTED[fault["type"]].format(**fault.get("ctx", {}))
    return re.sub("^Input should be |, (unable to|got a) .*", "", str(fault["msg"]))


def _place(
    kind: type[BaseModel], loc: Sequence[str | int], unknown: bool
) -> tuple[list[str | int], list[str]]:
    """The keys that lead to a fault, without pydantic's names of alternatives; their siblings."""
    path: list[str | int] = []
    kinds: list[Any] = [kind]
    for part in loc[:-1] if unknown else loc:
        fields = _fields(kinds)
        if part not in fields and len(kinds) > 1:
            break
        path.append(part)
        kinds = fields.get(part, [])
    return [*path, loc[-1]] if unknown else path, sorted(map(str, _fields(kinds)))


def _fields(kinds: Sequence[Any]) -> dict[str | int, list[Any]]:
    """The keys of those kinds of value that are settings, with the kinds of their values."""
    found: dict[str | int, list[Any]] = {}
    for block in kinds:
        if isinstance(block, type) and issubclass(block, BaseModel):
            for name, field in block.model_fields.items():
                union = get_origin(field.annotation) in (Union, UnionType)
                each = get_args(field.annotation) if union else (field.annotation,)
                found[field.alias or name] = [one for one in each if one is not type(None)]
    return found
