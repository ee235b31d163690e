"""Broken shards through a lenient `predict`: it goes on, and sound posts keep their answers."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rpbert import Tagger
from tests.batch.made import (
    Loaded,
    answers,
    job_of,
    lines,
    rows,
    tagged,
    write_jsonl,
    write_parquet,
    write_tar,
)
from tests.soak import Soak

POSTS = 6


def broken(content: bytes, draw: random.Random) -> bytes:
    """The bytes of a file, of which some were changed, put in, taken out or cut off."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(found))
        match draw.randrange(5):
            case 0 | 1:
                found[place] = draw.randrange(256)
            case 2:
                found[place:place] = draw.choice([b"{", b'"', b"\xff", b"\n", b"null", b"../"])
            case 3:
                del found[place : place + draw.randrange(1, 200)]
            case 4:
                found = found[: max(1, place)]
    return bytes(found)


def spans(row: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(entity["start"], entity["end"], entity["label"]) for entity in row["entities"]]


@pytest.mark.parametrize(
    "count",
    [
        40,
        pytest.param(
            500,
            marks=pytest.mark.slow("malformed JSON lines, Parquet, tars through predict", "500"),
        ),
    ],
)
def test_broken_shards_stop_no_run(model: Path, tmp_path: Path, soak: Soak, count: int) -> None:
    draw = random.Random(count)
    writers = {".jsonl": write_jsonl, ".parquet": write_parquet, ".tar": write_tar}
    engine = Loaded(Tagger.from_pretrained(model, "cpu"))
    expected = set()
    for number in range(count):
        suffix = list(writers)[number % 3]
        given = rows(POSTS, number, images=suffix != ".jsonl")
        writers[suffix](tmp_path / "in" / f"{number:04}{suffix}", given)
        expected |= {row["id"] for row in given}
    tagged(tmp_path / "in", tmp_path / "calm", job_of(model), engine)
    calm = {row["id"]: row for row in answers(tmp_path / "calm")}
    assert calm.keys() == expected
    for path in (tmp_path / "in").glob("*.*"):
        path.write_bytes(broken(path.read_bytes(), draw))
    summary = tagged(tmp_path / "in", tmp_path / "out", job_of(model), engine)
    assert summary.shards == count
    told: Counter[str] = Counter()
    same = 0
    for file in sorted((tmp_path / "out").glob("*.meta.json")):
        side = json.loads(file.read_text())
        output = file.with_name(side["output"]["name"])
        found = lines(output)
        faults = output.with_suffix(".errors.jsonl")
        assert faults.exists() == bool(side["errors"] or side["broken"])
        for fault in lines(faults) if faults.exists() else []:
            assert fault["file"] == side["input"]["name"]
            assert fault["reason"].startswith("found ")
            assert fault["reason"].isprintable()
            told[Path(fault["file"]).suffix] += 1
        for row in found:  # a text that came through whole, without an image, has its answer
            whole = calm.get(row["id"], {"text": None})
            if (row["text"], row["image"]) == (whole["text"], "none") and whole["image"] == "none":
                assert spans(row) == spans(whole)
                same += 1
    assert all(told[suffix] > count // 10 for suffix in writers)
    assert same > count
    counts = ", ".join(f"{told[suffix]} of {suffix}" for suffix in writers)
    soak(f"{counts} told; {same:,} posts that came through keep their entities")
