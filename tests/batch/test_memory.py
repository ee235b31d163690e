"""Memory stays flat, whatever is tagged."""

from __future__ import annotations

import gc
import io
import random
from collections.abc import Iterator
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
    draw, folder = random.Random(0), folder / "images"
    folder.mkdir()
    number = 0
    while True:
        words = [f"w{int(draw.paretovariate(0.7))}" for _ in range(draw.randrange(3, 25))]
        post: dict[str, Any] = {"id": str(number), "text": " ".join(words)}
        if number % 10 == 0:
            buffer = io.BytesIO()
            picture(number).save(buffer, "PNG")
            post["image"] = buffer.getvalue()
            if number % 20 == 0:
                path = folder / f"{number}.png"
                path.write_bytes(post["image"])
                post["image"] = path
        yield post
        number += 1


@pytest.mark.parametrize(
    ("count", "every", "bound"),
    [
        (3_000, 250, 16.0),  # so few posts tell only a leak that is large
        pytest.param(
            200_000, 5_000, 1.0, marks=pytest.mark.slow("resident memory", "200,000 predictions")
        ),
    ],
)
def test_memory_does_not_grow_with_the_posts(
    model: Path,
    tmp_path: Path,
    soak: Soak,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    every: int,
    bound: float,
) -> None:
    """The slope of the second half, in MB for 10,000 posts; the first half fills caches."""
    # Images of 32 pixels are so small that the usual 64 MB would not be full at the end.
    monkeypatch.setattr("rpbert.inference._IMAGES_KEPT", count * 10)
    process = psutil.Process()
    tagger = Tagger.from_pretrained(model, "cpu")
    stream = tagger.predict_stream(endless(tmp_path))
    counts, sizes = [], []
    for number, _ in zip(range(1, count + 1), stream, strict=False):
        if number % every == 0:
            gc.collect()
            counts.append(number / 10_000)
            sizes.append(process.memory_info().rss / 1e6)
    half = len(counts) // 2
    slope = float(np.polyfit(counts[half:], sizes[half:], 1)[0])
    ends = f"{sizes[half]:.0f} MB in the middle, {sizes[-1]:.0f} at the end"
    soak(f"{slope:+.2f} MB per 10,000; {ends}")
    assert slope < bound
