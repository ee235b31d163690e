"""Drawn pictures: they vary, their captions are true, and their shapes tell what colours do not."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from rpbert.synthetic.controlled import LABELS
from rpbert.synthetic.scenes import draw

WORDS_OF = {
    "person": {"person", "people"},
    "landscape": {"mountains", "sea", "skyline", "hills", "desert", "village"},
    "logo": {"shield", "badge", "logo", "shop"},
    "nothing": {"nothing"},
    "object": {"mug", "phone", "car", "ball", "trophy", "book", "guitar", "camera", "gift", "shoe"},
}


@pytest.mark.parametrize(
    ("label", "kinds"), [("PER", 2), ("LOC", 6), ("ORG", 4), ("MISC", 10), (None, 1)]
)
def test_the_caption_names_what_the_scene_shows_and_nothing_of_other_scenes(
    label: str | None, kinds: int
) -> None:
    seen = set()
    for k in range(100):
        scene = draw(label, random.Random(f"{label}{k}"), 32)
        words = set(scene.caption.replace(",", "").split())
        assert words & WORDS_OF[scene.kind]
        seen |= words & WORDS_OF[scene.kind]
        assert not any(words & own for kind, own in WORDS_OF.items() if kind != scene.kind)
        for article, following in pairwise(scene.caption.split()):
            assert article != "an" or following[0] in "aeiou"
            assert article != "a" or following[0] not in "aeiou"
    assert len(seen) >= kinds


@pytest.mark.parametrize("size", [32, 33, 700])
def test_every_size_is_drawn_in_full_colour_and_the_same_chance_the_same(size: int) -> None:
    for label in (*LABELS, None):
        first, again, other = (draw(label, random.Random(seed), size) for seed in (5, 5, 6))
        assert (first.image.tobytes(), first.caption) == (again.image.tobytes(), again.caption)
        assert first.image.tobytes() != other.image.tobytes()
        assert np.asarray(first.image.convert("L")).std() > 5


def test_shapes_tell_the_type_and_mean_colours_do_not() -> None:
    labels = LABELS
    scenes = [draw(labels[k % 4], random.Random(k), 64).image.resize((16, 16)) for k in range(800)]
    pixels = np.stack([np.asarray(image, dtype=np.float32) / 255 - 0.5 for image in scenes])
    types = np.arange(800) % 4
    means, shapes = pixels.mean(axis=(1, 2)), pixels.reshape(800, -1)
    by_colour = LogisticRegression(max_iter=500).fit(means[:500], types[:500])
    by_shape = SVC(C=10).fit(shapes[:500], types[:500])
    assert by_colour.score(means[500:], types[500:]) < 0.5
    assert by_shape.score(shapes[500:], types[500:]) > 0.7
