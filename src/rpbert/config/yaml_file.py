"""YAML of strangers: plain values only, no key twice, nothing that grows when it is read."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from rpbert.errors import InputError, reason_of

BYTE_LIMIT = 2**20
NODE_LIMIT = 100_000
"""Values of a document with every alias written out: a few lines of aliases can stand for
billions."""

# What PyYAML's constructors raise beside its own errors: `!!int x`, a date in month 13, …
_CONSTRUCTION = (ValueError, TypeError, AttributeError, LookupError, OverflowError)


class _Loader(yaml.SafeLoader):
    """Builds plain values, and tells each fault by its place."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _CONSTRUCTION as error:
            found = f"{node.value!r:.60} is no {node.tag.rpartition(':')[2]} ({error!r:.60})"
            raise yaml.constructor.ConstructorError(None, None, found, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                found = f"the key {key.value!r:.60} a second time"
                raise yaml.constructor.ConstructorError(None, None, found, key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises:
        InputError: there is no such file, or it holds anything else; the line names the place.
    """
    expected = "a readable YAML file in UTF-8"
    try:
        size = path.stat().st_size
        if size > BYTE_LIMIT:
            raise InputError(path, f"{size:,} bytes", f"settings of at most {BYTE_LIMIT:,}")
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, "no such file", "a YAML file of settings") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}"
        raise InputError(f"{path}:{line}", found, "text in UTF-8") from None
    except OSError as error:
        raise InputError(path, reason_of(error), expected) from None
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise InputError(path, found, "a YAML mapping with model, data, training")
    return values


def parse_yaml(text: str, where: object) -> Any:
    """The value of a YAML document.

    Raises:
        InputError: it is broken, holds other than plain values, or stands for too many.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        counts: dict[int, float] = {}
        if _count(node, counts) > NODE_LIMIT:
            largest = max(_children(node), key=lambda child: counts[id(child)])
            found = f"aliases that stand for more than {NODE_LIMIT:,} values"
            line = largest.start_mark.line + 1
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


def _children(node: Any) -> list[Any]:
    """What stands directly under a node: items, or keys and values."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _count(node: Any, known: dict[int, float]) -> float:
    """Values under a node with every alias written out; without end for one within itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        known[id(node)] = 1 + sum(_count(child, known) for child in _children(node))
    return known[id(node)]
