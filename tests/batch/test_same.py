"""A prediction does not depend on its batch or order; nor memory on the number of posts."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.batch.made import Tag, answers, assert_same, rows, write
from tests.conftest import picture
from tests.soak import Soak

MANY = pytest.mark.slow("resident memory", "200,000 predictions")


def written(folder: Path, given: list[dict[str, Any]]) -> Path:
    """Posts in three shards, one of each kind."""
    third = -(-len(given) // 3)
    write(folder / "a.jsonl", given[:third])
    write(folder / "b.tar", given[third : 2 * third])
    write(folder / "c.parquet", given[2 * third :])
    return folder


def test_a_post_gets_the_same_answer_whatever_surrounds_it(tag: Tag, tmp_path: Path) -> None:
    given = rows(30, 1)
    single = [tag.tagger.predict(row["text"], row.get("image")).to_dict() for row in given]
    expected = {row["id"]: {**one, "id": row["id"]} for row, one in zip(given, single, strict=True)}
    source = written(tmp_path / "in", given)
    random.Random(7).shuffle(given)
    runs = [*((source, size) for size in (1, 2, 8, 32)), (written(tmp_path / "mixed", given), 32)]
    for number, (folder, size) in enumerate(runs):
        tag(folder, tmp_path / str(number), batch_size=size)
        found = answers(tmp_path / str(number))
        assert_same(found, [expected[row["id"]] for row in found])
        assert {row["id"] for row in found} == expected.keys()
        assert sum(len(row["entities"]) for row in found) > len(given)


def endless(folder: Path) -> Iterator[dict[str, Any]]:
    """Posts with ever new words and, every tenth, an ever new image, as bytes or as a file."""
    draw = random.Random(0)
    for number in count():
        words = [f"w{int(draw.paretovariate(0.7))}" for _ in range(draw.randrange(3, 25))]
        post: dict[str, Any] = {"id": str(number), "text": " ".join(words)}
        if number % 10 == 0:
            post["image"] = folder / f"{number}.png"
            picture(number).save(post["image"])
            if number % 20 == 0:
                post["image"] = post["image"].read_bytes()
        yield post


@pytest.mark.parametrize(
    ("posts", "every", "bound"),  # the first shows only a large leak
    [(3_000, 250, 16.0), pytest.param(200_000, 5_000, 1.0, marks=MANY)],
)
def test_memory_does_not_grow_with_the_posts(
    tag: Tag,
    tmp_path: Path,
    soak: Soak,
    posts: int,
    every: int,
    bound: float,
) -> None:
    """The slope of the second half, in MB for 10,000 posts; the first half fills caches."""
    stream = tag.tagger.predict_stream(endless(tmp_path))
    sizes = []
    for number, _ in zip(range(posts), stream, strict=False):
        if (number + 1) % every == 0:
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss / 1e6)
    half = sizes[len(sizes) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)) * every / 10_000, half, 1)[0])
    soak(f"{slope:+.2f} MB per 10,000; {half[0]:.0f} MB in the middle, {half[-1]:.0f} at the end")
    assert slope < bound
