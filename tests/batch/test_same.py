"""A prediction does not depend on its batch, its order, the number of workers or the engine."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from rpbert import Tagger
from rpbert.batch import Engine
from rpbert.batch.ray_engine import tag_on_ray
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
    """Posts with images in three shards of two kinds, shuffled if an order is given."""
    given = rows(posts, 1)
    if order is not None:
        random.Random(order).shuffle(given)
    third = -(-posts // 3)
    write_jsonl(folder / "a.jsonl", given[:third])
    write_tar(folder / "b.tar", given[third : 2 * third])
    write_jsonl(folder / "c.jsonl", given[2 * third :])
    return folder


@pytest.mark.parametrize("posts", [30, pytest.param(500, marks=LONG)])
def test_a_post_gets_the_same_answer_whatever_surrounds_it(
    model: Path, tmp_path: Path, soak: Soak, posts: int
) -> None:
    tagger = Tagger.from_pretrained(model, "cpu")
    expected = {
        row["id"]: {**tagger.predict(row["text"], row.get("image")).to_dict(), "id": row["id"]}
        for row in rows(posts, 1)
    }
    source, shuffled = written(tmp_path / "in", posts), written(tmp_path / "mixed", posts, order=7)
    alone = Loaded(tagger)
    runs: list[tuple[str, Path, Engine, int]]
    runs = [(f"batch of {size}", source, alone, size) for size in (1, 2, 8, 32)]
    runs.append(("shuffled", shuffled, alone, 32))
    if posts > 30:  # each of these starts processes, which takes seconds
        runs += [(f"Ray, {n} workers", source, partial(tag_on_ray, workers=n), 32) for n in (1, 2)]
    worst, entities = 0.0, 0
    for name, given, engine, size in runs:
        tagged(given, tmp_path / name, job_of(model, batch_size=size), engine)
        found = answers(tmp_path / name)
        worst = max(worst, assert_same(found, [expected[row["id"]] for row in found]))
        entities = sum(len(row["entities"]) for row in found)
        assert {row["id"] for row in found} == expected.keys()
    assert entities > posts
    soak(f"{len(runs)} ways, {entities:,} entities equal; scores differ by {worst:.0e} at most")
