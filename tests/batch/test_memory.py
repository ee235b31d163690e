"""Memory stays flat, whatever is tagged."""

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

from rpbert import Tagger
from tests.conftest import picture
from tests.soak import Soak


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


LONG = pytest.mark.slow("resident memory", "200,000 predictions")


@pytest.mark.parametrize(
    ("posts", "every", "bound"),
    [
        (3_000, 250, 16.0),  # so few posts show only a leak that is large
        pytest.param(200_000, 5_000, 1.0, marks=LONG),
    ],
)
def test_memory_does_not_grow_with_the_posts(
    model: Path,
    tmp_path: Path,
    soak: Soak,
    monkeypatch: pytest.MonkeyPatch,
    posts: int,
    every: int,
    bound: float,
) -> None:
    """The slope of the second half, in MB for 10,000 posts; the first half fills caches."""
    # Images of 32 pixels are so small that the usual 64 MB would not be full at the end.
    monkeypatch.setattr("rpbert.inference._IMAGES_KEPT", posts * 10)
    stream = Tagger.from_pretrained(model, "cpu").predict_stream(endless(tmp_path))
    counts, sizes = [], []
    for number, _ in zip(range(1, posts + 1), stream, strict=False):
        if number % every == 0:
            gc.collect()
            counts.append(number / 10_000)
            sizes.append(psutil.Process().memory_info().rss / 1e6)
    half = len(counts) // 2
    slope = float(np.polyfit(counts[half:], sizes[half:], 1)[0])
    ends = f"{sizes[half]:.0f} MB in the middle, {sizes[-1]:.0f} at the end"
    soak(f"{slope:+.2f} MB per 10,000; {ends}")
    assert slope < bound
