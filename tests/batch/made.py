"""Shards of made posts, a small model that finds something in them, and what a run wrote."""

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
import torch

from rpbert import Tagger
from rpbert.batch import Engine, Event, Job, Shard, Summary
from rpbert.batch.finished import digest_of
from rpbert.batch.plan import find, plan
from rpbert.batch.run import set_aside, tag, tag_locally, tag_shard
from tests.conftest import picture, tiny

NAMES = ["Ada Lovelace", "Lake Como", "Acme", "Ulysses", "#NBA", "@user", "😀", "نور", "東京"]


def saved_model(folder: Path) -> Path:
    """A model of random weights whose tags differ from word to word."""
    model = tiny("rpbert")
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.weight").mul_(40)
    model.save(folder)
    return folder


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
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [dict(row) for row in given]
    for row in kept:
        if isinstance(content := row.get("image"), bytes):
            row["image"] = f"images/{row['id']}.png"
            (path.parent / "images").mkdir(exist_ok=True)
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


def shards_of(source: Path, output: Path, format: str = "jsonl") -> list[Shard]:
    return plan(*find(str(source)), output, format)  # type: ignore[arg-type]


def tagged(
    source: Path, output: Path, job: Job, engine: Engine | None = None, *, resume: bool = False
) -> Summary:
    """A whole run, as the command line does it."""
    summary, waiting = set_aside(job, shards_of(source, output, job.format), resume=resume)
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
    for mine, theirs in zip(found, expected, strict=True):
        exact, scores = zip(*(_apart(row) for row in (mine, theirs)), strict=True)
        assert exact[0] == exact[1]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        worst = max(worst, *(abs(a - b) for a, b in zip(*scores, strict=True)))
    return worst


def _apart(row: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """What of a prediction must be equal, and its scores."""
    entities = [{key: e[key] for key in e if key != "score"} for e in row["entities"]]
    scores = [row["relation"], *(e["score"] for e in row["entities"])]
    return {**row, "entities": entities, "relation": None}, scores
