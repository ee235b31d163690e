"""UMT against its equations: attention head by head, the loss over all tag sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rpbert.models.umt import Umt, conversion_matrix
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.encoder import pool_words
from rpbert.types import Batch, Post
from tests.conftest import NO_EVIDENCE, made_posts, tiny
from tests.models.plain import (
    Vector,
    assert_rows,
    enliven,
    gelu,
    heads,
    linear,
    normed,
    numbers,
    post_tokens,
    sigmoid,
)
from tests.modules.test_crf import Enumerated


def short_posts() -> list[Post]:
    """Posts of at most three words, so that all sequences of tags can be counted."""
    first, second, *_ = made_posts(2)
    known = {"image": first.image}
    return [
        Post.from_words("a", ("Ada", "Lovelace", "again"), tags=("B-PER", "I-PER", "O"), **known),
        Post.from_words("b", ("Lake",), tags=("B-LOC",), **NO_EVIDENCE),
        Post.from_words("c", ("RT", "Acme"), tags=("O", "B-ORG"), image=second.image),
        Post.from_words("d", (), tags=(), **known),
    ]


def layer(module: Any, queries: Vector, context: Vector) -> Vector:
    """T(q, c)."""
    bert = module.layer
    attention, size = bert.attention, bert.attention.self.attention_head_size
    attended = linear(attention.output.dense, heads(attention.self, queries, context, size))
    middle = normed(attention.output.LayerNorm, attended + queries)
    inner = gelu(linear(bert.intermediate.dense, middle))
    return normed(bert.output.LayerNorm, linear(bert.output.dense, inner) + middle)


def by_the_equations(system: Umt, words: Vector, tokens: Vector) -> tuple[Vector, Vector]:
    """e^y and e^z of one post from H and r."""
    first, second = (linear(w, tokens) for w in system.projection)
    read = layer(system.read_for_tags, words, words)
    aware = layer(system.image_to_words, read, layer(system.words_to_image, second, read))
    visual = layer(system.look, read, first)
    spans = linear(system.to_spans, layer(system.read_for_spans, words, words))
    gate = sigmoid(linear(system.gate, np.hstack([aware, visual])))
    own = linear(system.to_tags, np.hstack([aware, gate * visual]))
    return 0.5 * own + 0.5 * spans @ numbers(system.conversion), spans


def read_words(system: Umt, batch: Batch) -> list[Vector]:
    """H: BERT's words."""
    hidden = system.encoder(system.encoder.embed(batch.subwords), batch.subword_mask, image=None)
    words = pool_words(hidden, batch.word_of_subword, *batch.forms.shape)
    return [numbers(row[: len(p.words)]) for row, p in zip(words, batch.posts, strict=True)]


def likelihood(crf: LinearChainCRF, emissions: Vector, gold: list[int]) -> float:
    """log p(gold), by the sum over all sequences."""
    every = Enumerated(crf, torch.from_numpy(emissions))
    return every.log_probability(torch.tensor(gold)).item()


def test_emissions_and_loss_are_those_of_the_equations() -> None:
    posts = short_posts()
    model = tiny("umt", made_posts() + posts)
    system = model.system
    assert isinstance(system, Umt)
    enliven(system)
    batch = model.collator().with_gold(posts)
    output = system(batch)
    losses = output.losses.detach()
    words, tokens = read_words(system, batch), post_tokens(system, batch)
    assert [len(t) for t in tokens] == [16, 0, 16, 16]
    for i, post in enumerate(posts):
        emissions, spans = by_the_equations(system, words[i], tokens[i])
        assert_rows(output.emissions[i], emissions)
        assert post.tags is not None
        gold = [model.vocabulary.tag_rows[tag] for tag in post.tags]
        marks = ["OBI".index(tag[0]) for tag in post.tags]
        loss = -likelihood(system.tag_crf, emissions, gold)
        loss -= 0.5 * likelihood(system.span_crf, spans, marks)
        assert float(losses[i]) == pytest.approx(loss, abs=1e-5, rel=1e-5)


def test_a_mark_is_shared_among_its_tags() -> None:
    tags = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert conversion_matrix(tags).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 0.5, 0, 0.5, 0],
        [0, 0, 0.5, 0, 0.5],
    ]
