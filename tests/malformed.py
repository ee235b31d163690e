"""Data and settings as strangers' tools and hands break them, drawn by a seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rpbert.types import Post

POSTS = 12
PARQUET = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "tokens": pa.list_(pa.string()),
        "tags": pa.list_(pa.string()),
        "relation": pa.float64(),
        "image": pa.string(),
        "caption": pa.string(),
    }
)
SETTINGS: dict[str, Any] = {
    "preset": "tuned",
    "model": {
        "system": "rpbert",
        "gate": "soft",
        "encoder": {"shape": {"hidden_size": 16}, "vocabulary": 200},
        "evidence": {"blocks": {"shape": "resnet-18", "image_size": 32}},
        "tagger": {"word_dimension": 12, "dropout": 0.1},
    },
    "data": {"path": "posts"},
    "training": {"epochs": 3, "tagging": {"head": 0.01}, "clip_norm": 1.0, "tensorboard": False},
}


@dataclass(frozen=True)
class Broken:
    """A file that was broken.

    Attributes:
        path: what is to be opened.
        place: the fault is told at this place or any that this expression matches.
        touched: posts of which the breaking may leave nothing; None where it is the whole file.
    """

    path: Path
    place: re.Pattern[str]
    touched: set[str] | None


def rows() -> list[dict[str, Any]]:
    """Rows that nothing is wrong with."""
    words = ["RT", "Ada", "Lovelace", "in", "Como"]
    tags = ["O", "B-PER", "I-PER", "O", "B-LOC"]
    return [
        {
            "id": str(i),
            "text": " ".join(words),
            "tokens": words,
            "tags": tags,
            "relation": i % 2,
            "image": f"{i}.jpg",
            "caption": "a lake",
        }
        for i in range(POSTS)
    ]


def whole(posts: list[Post]) -> dict[str, tuple[Any, ...]]:
    """What is compared of posts that nothing touched."""
    return {post.id: (post.text, post.words, post.tags, post.relation) for post in posts}


def conll(folder: Path, draw: random.Random) -> Broken:
    """A text file with one broken line."""
    lines, owner = [], []
    for row in rows():
        held = [f"IMGID:{row['id']}", *map("\t".join, zip(row["tokens"], row["tags"], strict=True))]
        lines += [line.encode() for line in (*held, "")]
        owner += [row["id"]] * (len(held) + 1)
    at = draw.choice([i for i, line in enumerate(lines) if line])
    line = lines[at]
    word = line.partition(b"\t")[0]
    header = line.startswith(b"IMGID")
    breaks = [
        line[: draw.randrange(1, len(word))] + bytes([draw.randrange(0x80, 0xC0)]) + line,
        bytes([0xFF, 0xFE]) + line,
        b"IMGID:" if header else word + b"\t" + draw.choice([b"", b"0", b"PER", b"b-per", b"B-"]),
        b"IMGID:../" + word if header else word + b"\tB-PER ",
        b"IMGID:a/b" if header else word + b"\tI-",
        word[:3] + b"?" if header else word,
        b"IMGID:\0" if header else word + b"  \tB-\xe2\x80\xa8X",
        b"<<<<<<< HEAD",
    ]
    lines[at] = draw.choice(breaks)
    (folder / "images").mkdir(parents=True)
    path = folder / "train.txt"
    path.write_bytes(b"\n".join(lines) + b"\n")
    # Of a broken header the words tell of the fault, and of a file name the image does.
    place = re.compile(re.escape(str(path)) + f":({at + 1}|{at + 2})")
    return Broken(folder, place, {owner[at]})


BAD_VALUES: dict[str, list[Any]] = {
    "id": [None, "", 1.5, True, [], {}],
    "text": [None, 5, "something else", ["RT"], {}],
    "tokens": [5, "RT", [1], [None], ["Como", "RT"], {}],
    "tags": [5, ["O"], ["B-PER"] * 9, ["PER"] * 5, ["O", "B-PER", "I-PER", "O", None], "O O O O O"],
    "relation": [2, -1, "1", True, [], float("nan"), float("inf")],
    "image": [5, "../x.jpg", "/etc/passwd", "a/../../b", "C:\\x", "http://x/y.jpg", "a\0b", [], {}],
    "caption": [5, [], {}, True],
    "entities": [{}, [5], [{"start": 0}], [{"start": 0, "end": 99, "label": "PER"}], "PER"],
}


def jsonl(folder: Path, draw: random.Random) -> Broken:
    """A file of JSON lines with one broken line."""
    given = rows()
    lines = [json.dumps(row).encode() for row in given]
    at = draw.randrange(len(lines))
    line = lines[at]
    if draw.random() < 0.5:
        key = draw.choice(sorted(BAD_VALUES))
        values = [v for v in BAD_VALUES[key] if not (key == "text" and v is None)]
        changed = {**given[at], key: draw.choice(values)}
        lines[at] = json.dumps(changed).encode()
    else:
        cut = draw.randrange(1, len(line))
        breaks = [
            line[:cut],
            line[cut:],
            line[:cut] + b"\xff" + line[cut:],
            line + line,
            b"[" + line + b"]",
            b"null",
            b"{}",
            b'"' * draw.randrange(1, 9),
            b"{" * draw.randrange(1, 9),
            b"[" * 50_000,
            line.replace(b'"relation": ', b'"relation": 1e999' + b"9" * draw.randrange(3)),
        ]
        lines[at] = draw.choice(breaks)
    path = folder / "train.jsonl"
    folder.mkdir(parents=True)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Broken(path, re.compile(re.escape(f"{path}:{at + 1}:")), {given[at]["id"]})


def parquet(folder: Path, draw: random.Random) -> Broken:
    """A Parquet file with a bad value in one row, or bytes changed or lost anywhere."""
    given = rows()
    at = draw.randrange(len(given))
    path = folder / "train.parquet"
    folder.mkdir(parents=True)
    if draw.random() < 0.5:
        key = draw.choice(["id", "text", "tokens", "tags", "relation", "image"])
        bad = [value for value in BAD_VALUES[key] if _fits(key, value)]
        changed = {**given[at], key: draw.choice(bad)}
        table = pa.Table.from_pylist([*given[:at], changed, *given[at + 1 :]], schema=PARQUET)
        pq.write_table(table, path)
        return Broken(path, re.compile(re.escape(f"{path}:{at + 1}:")), {given[at]["id"]})
    pq.write_table(pa.Table.from_pylist(given, schema=PARQUET), path)
    content = bytearray(path.read_bytes())
    if draw.random() < 0.3:
        del content[draw.randrange(len(content)) :]
    else:
        for _ in range(draw.randint(1, 5)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)
    return Broken(path, re.compile(re.escape(str(path))), None)


def _fits(key: str, value: Any) -> bool:
    """Whether a value can stand in a column, and is at fault there."""
    try:
        pa.array([value], PARQUET.field(key).type)
    except (pa.ArrowException, TypeError, ValueError):
        return False
    # A number may stand for true; a text that is null leaves the tokens.
    return not (key == "relation" and value is True) and not (key == "text" and value is None)


def settings(folder: Path, draw: random.Random) -> Broken:
    """A YAML file with a misspelt key, a value of the wrong kind, or broken signs."""
    text = yaml.safe_dump(SETTINGS, sort_keys=False)
    lines = text.splitlines()
    at = draw.randrange(len(lines))
    line = lines[at]
    key, _, value = line.partition(":")
    indent = line[: len(line) - len(line.lstrip())]
    misspelt = key + draw.choice("xyz_")
    wrong = draw.choice(["[]", "{}", "[1, {}]", "!!int x", "2001-99-99", "!!python/name:os.system"])
    breaks: list[Callable[[], list[str]]] = [
        lambda: [misspelt + ":" + value],
        lambda: [key + ": " + wrong],
        lambda: [line, line],
        lambda: [line, indent + " - x"],
        lambda: ["\t" + line],
        lambda: [line + draw.choice(["\0", "\x07", "\ufffe"])],
        lambda: [key + ": &a [*a, *a]"],
        lambda: [key + ": *nowhere"],
        lambda: [key + ": " + draw.choice(["[", "{", '"', "'", "}", "@", "`", "%", "a: b: c"])],
        lambda: [key + ": " + "[" * 5_000],
        lambda: ["x: &x [1,1,1,1,1,1,1,1,1]", *(f"{c}: &{c} [{(b + ',') * 9}]" for b, c in _BOMB)],
        lambda: [indent + "- " + line.strip()],
        lambda: [line.replace(":", " ")],
        lambda: ["---", line],
    ]
    lines[at : at + 1] = draw.choice(breaks)()
    folder.mkdir(parents=True)
    path = folder / "run.yaml"
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        content = content[:40] + b"\xff" + content[40:]
    path.write_bytes(content)
    # The line of what cannot be read, or the key of what cannot be meant.
    named = (
        r"(:\d+: |.*(unknown key|no key|[\w.]+ = |[\w.]+ with |no mapping|system|nested|aliases))"
    )
    return Broken(path, re.compile(re.escape(str(path)) + named), None)


_BOMB = [(f"*{b}", c) for b, c in zip("xabcdefg", "abcdefgh", strict=True)]
