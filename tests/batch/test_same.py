"""A prediction does not depend on its batch, its order, the number of workers or the engine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rpbert import Tagger
from rpbert.batch import Engine
from rpbert.batch.processes import Processes
from rpbert.batch.ray_engine import RayEngine
from tests.batch.made import (
    Loaded,
    answers,
    assert_same,
    job_of,
    rows,
    tagged,
    write_jsonl,
    write_tar,
)
from tests.soak import Soak

LONG = pytest.mark.slow(
    "batch of 1, 2, 8, 32, shuffled, 1 and 2 workers, local and Ray", "500 posts"
)


def written(folder: Path, posts: int, order: int | None = None) -> Path:
    """Posts in three shards of two kinds, with images, in an order of their own if so wished."""
    given = rows(posts, 1)
    if order is not None:
        random.Random(order).shuffle(given)
    third = -(-posts // 3)
    write_jsonl(folder / "a.jsonl", given[:third])
    write_tar(folder / "b.tar", given[third : 2 * third])
    write_jsonl(folder / "c.jsonl", given[2 * third :])
    return folder


@pytest.mark.parametrize("posts", [60, pytest.param(500, marks=LONG)])
def test_a_post_gets_the_same_answer_whatever_surrounds_it(
    model: Path, tmp_path: Path, soak: Soak, posts: int
) -> None:
    tagger = Tagger.from_pretrained(model, "cpu")
    expected = [
        {**tagger.predict(row["text"], image=row.get("image")).to_dict(), "id": row["id"]}
        for row in rows(posts, 1)
    ]
    place = {row["id"]: number for number, row in enumerate(expected)}
    source, shuffled = written(tmp_path / "in", posts), written(tmp_path / "mixed", posts, order=7)
    alone = Loaded(tagger)
    runs: list[tuple[str, Path, Engine, int]]
    runs = [(f"batch of {size}", source, alone, size) for size in (1, 2, 8, 32)]
    runs.append(("shuffled", shuffled, alone, 32))
    if posts > 60:  # each of these begins processes, which takes seconds
        runs += [("2 workers", source, Processes(2, 0), 32), ("Ray", source, RayEngine(1), 32)]
        runs += [("Ray, 2 workers", source, RayEngine(2), 32)]
    worst, found_entities = 0.0, 0
    for name, given, engine, size in runs:
        output = tmp_path / name
        tagged(given, output, job_of(model, batch_size=size), engine)
        found = sorted(answers(output), key=lambda row: place[row["id"]])
        worst = max(worst, assert_same(found, expected))
        found_entities = sum(len(row["entities"]) for row in found)
    assert found_entities > posts
    soak(
        f"{len(runs)} ways, {found_entities:,} entities equal; scores differ by {worst:.0e} at most"
    )
