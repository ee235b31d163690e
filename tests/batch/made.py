"""Shards of made posts, a small model that finds something in them, and what a run wrote."""

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
import torch

from rpbert import Tagger
from rpbert.batch import Event, Job, Shard, Summary
from rpbert.batch.finished import digest_of
from rpbert.batch.local import InProcess, ShardTagger
from rpbert.batch.plan import find, plan
from rpbert.batch.run import set_aside, tag
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
    lines = []
    for row in given:
        kept = dict(row)
        if isinstance(row.get("image"), bytes):
            kept["image"] = f"images/{row['id']}.png"
            file = path.parent / kept["image"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row["image"])
        lines.append(json.dumps(kept) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")
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
    source: Path, output: Path, job: Job, engine: Any = None, *, resume: bool = False
) -> Summary:
    """A whole run, as the command line does it."""
    summary, waiting = set_aside(job, shards_of(source, output, job.format), resume=resume)
    return tag(job, waiting, engine or InProcess("cpu"), summary)


class Loaded:
    """The engine of one process, with a model that is loaded already."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def run(self, job: Job, shards: Sequence[Shard]) -> Iterator[Event]:
        tagger = ShardTagger(self.tagger, job)
        for number, shard in enumerate(shards):
            yield from tagger.tag(number, shard)


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
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    worst = 0.0
    for mine, theirs in zip(found, expected, strict=True):
        for key in ("text", "image"):
            assert mine[key] == theirs[key]
        spans = [
            [(e["text"], e["label"], e["start"], e["end"]) for e in row["entities"]]
            for row in (mine, theirs)
        ]
        assert spans[0] == spans[1], mine["id"]
        pairs = [
            (a["score"], b["score"])
            for a, b in zip(mine["entities"], theirs["entities"], strict=True)
        ]
        pairs.append((mine["relation"], theirs["relation"]))
        worst = max([worst, *(abs(a - b) for a, b in pairs)])
    assert worst <= 1e-4
    return worst
