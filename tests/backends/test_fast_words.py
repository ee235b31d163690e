"""Remembered words against word embeddings that forget."""

from __future__ import annotations

import random

import pytest
import torch

from rpbert.backends.fast_words import RememberedWords
from rpbert.models.tagger import WordEmbeddings
from rpbert.types import Post
from tests.conftest import made_posts, tiny

MODEL = tiny("bilstm_crf")
EMBEDDINGS = next(m for m in MODEL.system.modules() if isinstance(m, WordEmbeddings))


@pytest.mark.parametrize("remembered", [3, 20, 1000])
def test_words_are_what_they_were_whatever_came_before(remembered: int) -> None:
    words, collate = RememberedWords(EMBEDDINGS), MODEL.collator()
    words.remembered = remembered
    draw, posts = random.Random(0), [*made_posts(24), Post.from_words("empty", ())]
    with torch.no_grad():
        for _ in range(20):
            batch = collate(draw.sample(posts, draw.randint(1, 4)))
            expected = EMBEDDINGS(batch)[batch.word_mask]
            torch.testing.assert_close(words(batch)[batch.word_mask], expected)


def test_a_word_is_spelt_once() -> None:
    words, collate = RememberedWords(EMBEDDINGS), MODEL.collator()
    spelt: list[int] = []
    handle = words.characters.register_forward_pre_hook(
        lambda _module, given: spelt.append(len(given[0]))
    )
    with torch.no_grad():
        for posts in (made_posts(8), made_posts(8), made_posts(12)):
            words(collate(posts))
    handle.remove()
    assert sum(spelt) == len({word for post in made_posts(12) for word in post.words})
