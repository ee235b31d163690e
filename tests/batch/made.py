"""Shards of made posts, a whole run over them, and what it wrote."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpbert import Tagger
from rpbert.batch import Engine, Event, Job, Shard, Summary
from rpbert.batch.finished import digest_of
from rpbert.batch.plan import find, plan
from rpbert.batch.run import set_aside, tag, tag_locally, tag_shard
from tests.conftest import picture

NAMES = ["Ada Lovelace", "Lake Como", "Acme", "Ulysses", "#NBA", "@user", "😀", "نور", "東京"]


def rows(count: int, seed: int = 0, images: bool = True) -> list[dict[str, Any]]:
    """Posts of many lengths as rows; every third has an image, as bytes."""
    draw = random.Random(seed)
    found = []
    for i in range(count):
        words = [draw.choice([*NAMES, f"word{draw.randrange(50)}"]) for _ in range(1 + i * 7 % 40)]
        row: dict[str, Any] = {"id": f"{seed}-{i}", "text": " ".join(words)}
        if images and i % 3 == 0:
            buffer = io.BytesIO()
            picture(draw.randrange(40)).save(buffer, "PNG")
            row["image"] = buffer.getvalue()
        found.append(row)
    return found


def write_jsonl(path: Path, given: Iterable[dict[str, Any]]) -> Path:
    """Rows as JSON lines, their images beside the file."""
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    kept = [dict(row) for row in given]
    for row in kept:
        if isinstance(content := row.get("image"), bytes):
            row["image"] = f"images/{row['id']}.png"
            (path.parent / row["image"]).write_bytes(content)
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return path


def write_parquet(path: Path, given: Sequence[dict[str, Any]]) -> Path:
    kinds = {"id": pa.string(), "text": pa.string(), "image": pa.binary()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(given), pa.schema(kinds)), path)
    return path


def write_tar(path: Path, given: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row in given:
            members = {".png": row.get("image"), ".txt": row["text"].encode()}
            for suffix, content in members.items():
                if content is not None:
                    info = tarfile.TarInfo(row["id"] + suffix)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path


def job_of(model: Path, **options: Any) -> Job:
    return Job(model, digest_of(model), **options)


def tagged(
    source: Path, output: Path, job: Job, engine: Engine | None = None, *, resume: bool = False
) -> Summary:
    """A whole run, as the command line does it."""
    shards = plan(*find(str(source)), output, job.format)
    summary, waiting = set_aside(job, shards, resume=resume)
    return tag(job, waiting, engine or partial(tag_locally, device="cpu"), summary)


class Loaded:
    """The local engine, with a model that is loaded already."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def __call__(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        for number, shard in enumerate(shards):
            yield from tag_shard(self.tagger, job, number, shard)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def answers(folder: Path) -> list[dict[str, Any]]:
    """All predictions of a folder of JSON lines, shard after shard."""
    files = sorted(folder.glob("*.jsonl"))
    return [row for file in files if ".errors" not in file.name for row in lines(file)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> float:
    """Entities equal, scores within 1e-4; returns the largest difference of a score."""
    worst = 0.0
    for pair in zip(found, expected, strict=True):
        exact = [
            {**row, "relation": None, "entities": [{**e, "score": 0} for e in row["entities"]]}
            for row in pair
        ]
        mine, theirs = ([row["relation"], *(e["score"] for e in row["entities"])] for row in pair)
        assert exact[0] == exact[1]
        assert mine == pytest.approx(theirs, abs=1e-4)
        worst = max(worst, *(abs(a - b) for a, b in zip(mine, theirs, strict=True)))
    return worst
