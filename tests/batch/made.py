"""Shards of made posts, a whole run over them, and what it wrote."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rpbert import Tagger
from rpbert.batch import Engine, Event, Job, Shard, Summary
from rpbert.batch.plan import digest_of, find, plan
from rpbert.batch.run import set_aside, tag, tag_shard
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


def write(path: Path, given: Iterable[dict[str, Any]]) -> Path:
    """Rows as a file of the kind that its name says; beside JSON lines lie their images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [dict(row) for row in given]
    if path.suffix == ".parquet":
        kinds = {"id": pa.string(), "text": pa.string(), "image": pa.binary()}
        pq.write_table(pa.Table.from_pylist(kept, pa.schema(kinds)), path)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for row in kept:
                if "image" in row:
                    add(tar, row["id"] + ".png", row["image"])
                add(tar, row["id"] + ".txt", row["text"].encode())
    else:
        for row in kept:
            if isinstance(content := row.get("image"), bytes):
                row["image"] = f"{row['id']}.png"
                (path.parent / row["image"]).write_bytes(content)
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


class Tag:
    """Whole runs with a model that is loaded once, as the command line does them."""

    def __init__(self, model: Path) -> None:
        self.model, self.digest = model, digest_of(model)
        self.tagger = Tagger.from_pretrained(model, "cpu")

    def here(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        for number, shard in enumerate(shards):
            yield from tag_shard(self.tagger, job, number, shard)

    def __call__(
        self, source: Path, output: Path, by: Engine | None = None, resume: bool = False, **job: Any
    ) -> Summary:
        work = Job(self.model, self.digest, **job)
        shards = plan(*find(str(source)), output, work.format)
        summary, waiting = set_aside(work, shards, resume=resume)
        return tag(work, waiting, by or self.here, summary)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def parquet(path: Path) -> list[dict[str, Any]]:
    """Predictions of a Parquet file, without the keys that JSON lines leave out where absent."""
    rows = pq.read_table(path).to_pylist()
    optional = ("image_reason", "sources")
    return [{k: v for k, v in row.items() if v or k not in optional} for row in rows]


def answers(folder: Path) -> list[dict[str, Any]]:
    """All predictions of a folder of JSON lines, shard after shard."""
    files = sorted(folder.glob("*.jsonl"))
    return [row for file in files if ".errors" not in file.name for row in lines(file)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same(
    found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]], far: float = 1e-4
) -> float:
    """Entities equal, scores within `far`; returns the largest difference of a score."""
    worst = 0.0
    for pair in zip(found, expected, strict=True):
        exact = [
            {**row, "relation": None, "entities": [{**e, "score": 0} for e in row["entities"]]}
            for row in pair
        ]
        mine, theirs = ([row["relation"], *(e["score"] for e in row["entities"])] for row in pair)
        assert exact[0] == exact[1]
        assert mine == pytest.approx(theirs, abs=far)
        worst = max(worst, *(abs(a - b) for a, b in zip(mine, theirs, strict=True)))
    return worst
