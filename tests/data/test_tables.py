"""Rows of JSON lines and Parquet: what they mean, what is survived and what is refused."""

from __future__ import annotations

import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpbert.data.images import BYTE_LIMIT
from rpbert.data.readers import open_data, read_shard
from rpbert.data.reading import LINE_LIMIT, LeftOut, ReadLog, lines_of
from rpbert.data.tables import read_table
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.types import Post, PostImage
from tests.data.files import jsonl, kinds, read, table

both_formats = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


def span(start: object, end: object, label: object = "LOC") -> dict[str, object]:
    return {"start": start, "end": end, "label": label}


ABSENT = dict.fromkeys(("text", "tokens", "tags", "entities", "image", "caption", "relation"))


@both_formats
def test_what_rows_mean(tmp_path: Path, suffix: str) -> None:
    words = {"tokens": ["Hi", "Anna", "Lee", "!"], "tags": ["O", "B-PER", "I-PER", "O"]}
    rome = {"text": "😀 Rome", "entities": [span(2, 6)], "relation": 0.25}
    rows = [
        ABSENT | words | {"id": "1", "text": "Hi  Anna Lee!", "caption": "a cat", "relation": 1.0},
        ABSENT | rome | {"id": "2"},
        ABSENT | {"id": "3", "tokens": ["x", "", "y"], "image": "pictures/3.png"},
    ]
    path = table(tmp_path / f"posts{suffix}", rows)
    posts, quirks = read(path)
    assert posts == [
        Post("1", ("Hi", "Anna", "Lee", "!"), "Hi  Anna Lee!",
             ((0, 2), (4, 8), (9, 12), (12, 13)), ("O", "B-PER", "I-PER", "O"),
             (PostImage(None, "a cat", 1.0),), f"{path}:1"),
        Post("2", ("😀", "Rome"), "😀 Rome", ((0, 1), (2, 6)), ("O", "B-LOC"),
             (PostImage(relation=0.25),), f"{path}:2"),
        Post("3", ("x", "", "y"), "x  y", ((0, 1), (2, 2), (3, 4)), None,
             (PostImage(path.parent / "pictures" / "3.png"),), f"{path}:3"),
    ]  # fmt: skip
    assert kinds(quirks) == [(3, "empty word")]


@both_formats
def test_a_row_with_several_images(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "text": "x", "image": ["a.jpg", "b.jpg", None],
         "caption": ["a cat", None, "a map"], "relation": [0, 0.5, None]},
        {"id": "2", "text": "x", "image": ["a.jpg"], "caption": [], "relation": None},
    ]  # fmt: skip
    (several, single), _ = read(table(tmp_path / f"posts{suffix}", rows))
    a, b = tmp_path / "a.jpg", tmp_path / "b.jpg"
    assert several.images == (PostImage(a, "a cat", 0), PostImage(b, None, 0.5),
                              PostImage(None, "a map"))  # fmt: skip
    assert single.images == (PostImage(a),)
    row = {"id": "1", "text": "x", "image": ["a.jpg", "b.jpg"], "caption": "a cat"}
    (post,), _ = read(jsonl(tmp_path / "once.jsonl", [row]))  # given once: of the first image
    assert post.images == (PostImage(a, "a cat"), PostImage(b))


def test_images_as_other_tools_write_them(tmp_path: Path) -> None:
    held = [{"bytes": bytes([i]), "path": None} for i in range(200)]  # more than at once
    images = [*held, {"bytes": None, "path": "a.jpg"}, None]
    rows = [{"id": i, "text": "x", "image": image} for i, image in enumerate(images)]
    posts, _ = read(table(tmp_path / "posts.parquet", rows))
    expected = [*(image["bytes"] for image in held), tmp_path / "a.jpg", None]
    assert [post.image for post in posts] == expected
    (post,), quirks = read(jsonl(tmp_path / "x.jsonl", [{"id": "1", "text": "x", "image": ""}]))
    assert post.image is None
    assert kinds(quirks) == [(1, "empty image")]


def test_faulty_rows_are_told_and_the_others_read(tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(i), "text": "x"}).encode() for i in range(3)]
    lines[1:1] = [b"{", b"\xff", b'{"id": 5}', b'"' + b"x" * LINE_LIMIT + b'"']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    broken = pa.array([b"x", b"\xff", b"x", b"x"]).view(pa.string())
    ids = pa.array(["0", "bad", "1", "2"])
    pq.write_table(pa.table({"id": ids, "text": broken}), tmp_path / "x.parquet")
    faults: list[InputError] = []
    for name in ("x.jsonl", "x.parquet"):
        posts = read_table(tmp_path / name, SPLITTERS["joined"], ReadLog(fault=faults.append))
        assert [post.id for post in posts] == ["0", "1", "2"]
    left_out = LeftOut()
    for fault in faults:
        left_out(fault)
    assert [str(f.where) in str(left_out) for f in faults] == [True] * 3 + [False] * 2
    places = [str(fault.where).removeprefix(f"{tmp_path}/") for fault in faults]
    assert places == ["x.jsonl:2", "x.jsonl:3", "x.jsonl:4", "x.jsonl:5", "x.parquet:2"]


def test_a_line_up_to_the_limit_is_read(tmp_path: Path) -> None:
    lengths = (LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT, 1)
    content = b"\r\n".join(b"b" * length for length in lengths)
    (tmp_path / "x").write_bytes(content)
    faults: list[InputError] = []
    lines = lines_of(tmp_path / "x", ReadLog(fault=faults.append))
    assert [(number, len(line)) for number, line in lines] == [(1, LINE_LIMIT), (4, 1)]
    assert len(faults) == 2


def test_the_splits_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    for name, split in {"train": "train", "valid": "dev", "test": "test", "posts": "all"}.items():
        path = jsonl(tmp_path / f"{name}.jsonl", [{"id": name, "text": "#NBA"}, {"id": "2"}])
        assert open_data(path).splits == (split,)
        posts = open_data(path, SPLITTERS["apart"]).read(split)
        assert next(posts).words == ("#", "NBA")
        with pytest.raises(InputError, match=rf"{name}\.jsonl:2"):
            next(posts)  # rows are read one after the other
    (tmp_path / "valid.jsonl").unlink()
    table(tmp_path / "dev.parquet", [{"id": "valid", "text": "y"}])
    source = open_data(tmp_path)
    assert source.splits == ("train", "dev", "test")
    assert [next(source.read(split)).id for split in source.splits] == ["train", "valid", "test"]


def test_oddities_of_rows_are_survived_and_listed(tmp_path: Path) -> None:
    rows = [
        {"id": 700000000000000001, "text": "a \ud800b", "lang": "en"},
        {"id": "2", "text": "😀 x", "tokens": ["x"], "lang": "en"},
        {"id": "3", "tokens": ["x", "y"], "tags": ["I-OTHER", "O"]},
    ]
    path = jsonl(tmp_path / "posts.jsonl", rows)
    path.write_text("\n" + path.read_text())
    posts, quirks = read(path)
    assert [(post.id, post.text, post.words, post.spans) for post in posts] == [
        ("700000000000000001", "a \ufffdb", ("a", "\ufffd", "b"), ((0, 1), (2, 3), (3, 4))),
        ("2", "😀 x", ("x",), ((2, 3),)),
        ("3", "x y", ("x", "y"), ((0, 1), (2, 3))),
    ]
    assert posts[2].tags == ("I-MISC", "O")
    found = ["unknown key", "lone surrogate", "text between tokens", "OTHER for MISC"]
    lines = [2, 2, 3, 4]
    assert kinds(quirks) == [(1, "blank line"), *zip(lines, found, strict=True), (4, "lone I- tag")]


def test_what_entities_make_of_tags_and_words(tmp_path: Path) -> None:
    """Both may be given where they agree, and a raw text is cut where one is part of a word."""
    path = tmp_path / "posts.jsonl"
    row = {"id": "1", "text": "in Rome", "tags": ["O", "I-OTHER"]}
    (post,), _ = read(jsonl(path, [row | {"entities": [span(3, 7, "MISC")]}]))
    assert post.tags == ("O", "I-MISC")
    with pytest.raises(InputError, match="entities"):
        read(jsonl(path, [row | {"entities": [span(3, 7)]}]))
    cut = {"id": "1", "text": "go #NBAFinals !", "entities": [span(4, 7), span(7, 13, "OTHER")]}
    (post,), quirks = read(jsonl(path, [cut]))
    assert post.words == ("go", "#", "NBA", "Finals", "!")
    assert post.tags == ("O", "O", "B-LOC", "B-MISC", "O")
    assert kinds(quirks) == [(1, "entity inside a word"), (1, "OTHER for MISC")]
    bad = {"id": "1", "text": "New York", "tags": ["O"], "entities": 5, "relation": "x"}
    (post,) = read_shard(jsonl(path, [bad]), SPLITTERS["joined"])  # to be tagged it needs no gold
    assert (post.words, post.tags, post.relation) == (("New", "York"), None, None)
    with pytest.raises(InputError):
        read(path)


TAGGED = {"id": "1", "text": "RT Ada in Como", "tokens": ["RT", "Ada", "in", "Como"]}
WRONG: dict[str, list[tuple[Any, str]]] = {
    "id": [(None, "id None"), ("", "id ''"), (True, "id True")],
    "text": [(5, "text 5")],
    "tokens": [(5, "tokens 5"), (["Como", "RT"], "token 2, 'RT'")],
    "tags": [(["O"], "1 tags for 4"), (["PER"] * 4, "the tag 'PER'")],
    "relation": [(2, "2"), (-1, "-1"), (True, "True"), (10**400, "1000"), (math.nan, "nan")],
    "image": [
        (5, "image 5"),
        ({"url": "x.jpg"}, "image {'url'"),
        ({"bytes": "a", "path": None}, "image bytes 'a'"),
        (["a"] * 17, "17 images"),
        (["a", "../x"], "the image"),
        ("http://t.co/x", "the image"),
    ],
    "caption": [(5, "caption 5")],
    "entities": [
        ({}, "entities {}"),
        ([5], "entity 5"),
        ([span(0, 99)], "0 to 14"),
        ([span(3, 3)], "entity"),
        ([span([0], {})], "entity"),
        ([span(3, 5)], "'Ad' at 3 to 5"),
        ([span(3, 9), span(7, 14)], "two entities"),
    ],
}
ALONE: list[tuple[dict[str, Any], str]] = [
    ({"text": None, "tokens": None}, "neither text nor tokens"),
    ({"relation": "1"}, "'1'"),
    ({"image": ["a", "b", "c"], "relation": [0, 1]}, "list of 2 beside one of 3"),
    *(({key: bad}, found) for key, values in WRONG.items() for bad, found in values),
]
BROKEN = [
    ("{", ""),
    ("[" * 100_000, ""),
    ('{"id": ' + "1" * 5000 + "}", ""),
    ("[1]", ""),
    ("{}", "id"),
]


@pytest.mark.parametrize(
    ("line", "found"), BROKEN + [(json.dumps(TAGGED | row), found) for row, found in ALONE]
)
def test_malformed_rows(tmp_path: Path, line: str, found: str) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text('{"id": "0", "text": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"posts\.jsonl:2: .*{re.escape(found)}") as error:
        read(path)
    assert len(str(error.value)) < 400 + len(str(path))


@both_formats
def test_a_misspelt_key_is_refused_and_an_unrelated_one_is_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"posts{suffix}"
    table(path, [{"id": "1", "text": "a", "Tags": ["O"]}])
    with pytest.raises(InputError, match="'Tags'; expected tags;"):
        read(path)
    assert len(list(read_shard(path, SPLITTERS["joined"]))) == 1  # where gold is not read
    user = "x" if suffix == ".jsonl" else date(2026, 1, 1)  # of a kind that is refused where read
    posts, quirks = read(table(path, [{"id": "1", "text": "a", "images_seen": 3, "user": user}]))
    assert [post.text for post in posts] == ["a"]
    assert kinds(quirks) == [(1, "unknown key")] * 2


# An extension type may bring code along: one of Ray's loads whatever its bytes ask for.
CODE = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16)))
NESTED = pa.StructArray.from_arrays([CODE, pa.array(["x"])], ["bytes", "path"])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PAR1 no parquet PAR1", "Parquet"),
        (pa.table({"id": [1], "text": pa.array([2**62], pa.timestamp("ns"))}), "'text'"),
        (pa.table({"id": [1], "text": ["x"], "image": NESTED}), "'image'"),
        (pa.table({"text": ["x"]}), "no column id"),
        (pa.table([[1], ["x"], ["y"]], names=["id", "text", "text"]), "twice"),
    ],
)
def test_parquet_that_holds_no_posts_is_refused(tmp_path: Path, content: Any, found: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "x.parquet").write_bytes(content)
    else:
        pq.write_table(content, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=rf"x\.parquet: .*{found}"):
        read(tmp_path / "x.parquet")


def test_files_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n \n")
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    for file in tmp_path.iterdir():
        with pytest.raises(InputError, match=file.name):
            read(file)


def test_parquet_has_the_limits_of_lines_before_values_are_made(tmp_path: Path) -> None:
    """Small files that claim or unpack to far more; rows around the large ones are read."""
    large, few = "a" * (LINE_LIMIT + 1), ["x"] * 3
    ids = pa.array(["0", "1", "2"])
    many = pa.ListArray.from_arrays([0, 1, 3_000_001, 3_000_002], pa.array([1] * 3_000_002))
    lists = pa.array([["x"], ["b" * 2**19] * 100, ["x"]])
    cases = {
        "text": {"id": ids, "text": pa.array(["x", large, "x"])},
        "tokens": {"id": ids, "tokens": lists},
        "numbers": {"id": ids, "text": pa.array(few), "relation": many},
        "unknown": {"id": ids, "text": pa.array(few), "blob": pa.array(["x", large, "x"])},
    }
    for name, columns in cases.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path, compression="zstd")
        assert path.stat().st_size < 2_000_000
        faults: list[InputError] = []
        posts = read_table(path, SPLITTERS["joined"], ReadLog(fault=faults.append, notes=[]))
        kept = ["0", "1", "2"] if name == "unknown" else ["0", "2"]
        assert [post.id for post in posts] == kept
        assert [str(fault.where) for fault in faults] == [f"{path}:2"] * (name != "unknown")
    average = pa.table({"id": ["0"], "text": ["a" * (17 * BYTE_LIMIT)]})
    pq.write_table(average, tmp_path / "group.parquet", compression="zstd")
    with pytest.raises(InputError, match=r"group\.parquet:1: found the rows up to 1, of 1 values"):
        read(tmp_path / "group.parquet")
