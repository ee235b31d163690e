"""Modality attention against its equations."""

from __future__ import annotations

import torch

from rpbert.models.modality_attention import ModalityAttention
from tests.conftest import tiny
from tests.models.plain import (
    Vector,
    assert_rows,
    each,
    enliven,
    linear,
    mean,
    normed,
    numbers,
    post_tokens,
    posts_of_every_kind,
    sigmoid,
    softmax,
    weighted,
)


def by_the_equations(
    system: ModalityAttention, words: list[Vector], tokens: list[Vector]
) -> list[Vector]:
    """x̄_t of one post."""
    width = system.embeddings.vectors.width
    seen = [0.0] * width
    if tokens:
        image = linear(system.projection, mean(tokens, len(tokens[0])))
        seen = normed(system.norms[2], image)
    mixed = []
    for word in words:
        form = normed(system.norms[0], linear(system.word_map, word[:width]))
        spelling = normed(system.norms[1], linear(system.character_map, word[width:]))
        scores = each(sigmoid, linear(system.weigh, form + spelling + seen))
        modalities = [form, spelling, seen]
        there = 3 if tokens else 2
        mixed.append(weighted(softmax(scores[:there]), modalities[:there], width))
    return mixed


def test_words_are_mixed_as_the_equations_say() -> None:
    model = tiny("modality_attention")
    system = model.system
    assert isinstance(system, ModalityAttention)
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).emissions
    embedded, tokens = system.embeddings(batch), post_tokens(system, batch)
    for i, post in enumerate(batch.posts):
        words = [numbers(embedded[i, t]) for t in range(len(post.words))]
        mixed = by_the_equations(system, words, tokens[i])
        inputs = torch.tensor(mixed).view(1, len(mixed), system.embeddings.vectors.width)
        if not mixed:
            continue
        expected = system.tagger(inputs, torch.ones(1, len(mixed), dtype=torch.bool))[0]
        assert_rows(found[i], [numbers(row) for row in expected])
