"""Each system without a text encoder against its equations, word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from tests.conftest import TAGGER, tiny
from tests.models.plain import (
    Vector,
    additive,
    assert_rows,
    bilstm,
    enliven,
    linear,
    lstm_states,
    mean,
    normed,
    numbers,
    post_tokens,
    post_words,
    posts_of_every_kind,
    sigmoid,
    softmax,
)


def image_at_t0(system: Any, words: Vector, tokens: Vector) -> Vector:
    ends = linear(system.projection, mean(tokens)[None])[: len(tokens)]
    states = bilstm(system.tagger.lstm, np.concatenate([ends, words, ends]))
    return states[len(ends) : len(ends) + len(words)]  # the image takes no tag


def modality_attention(system: Any, words: Vector, tokens: Vector) -> Vector:
    width = system.embeddings.vectors.width
    image = normed(system.norms[2], linear(system.projection, mean(tokens)))
    seen = image if len(tokens) else np.zeros(width)
    mixed = np.zeros((len(words), width))
    for t, word in enumerate(words):
        form = normed(system.norms[0], linear(system.word_map, word[:width]))
        spelling = normed(system.norms[1], linear(system.character_map, word[width:]))
        scores = sigmoid(linear(system.weigh, np.concatenate([form, spelling, seen])))
        there = 3 if len(tokens) else 2
        mixed[t] = softmax(scores[:there]) @ np.stack([form, spelling, seen])[:there]
    return bilstm(system.tagger.lstm, mixed)


def visual_attention(system: Any, words: Vector, tokens: Vector) -> Vector:
    query = [np.zeros(system.tagger.width), *lstm_states(system.asker, 0, "", words)][-1]
    context = additive(system.attention, query, linear(system.projection, tokens))
    hidden = bilstm(system.tagger.lstm, words)
    both = np.hstack([hidden, np.tile(context, (len(hidden), 1))])
    visual, word = (
        sigmoid(linear(system.visual_gate, both)),
        sigmoid(linear(system.word_gate, both)),
    )
    return word * hidden + visual * np.tanh(linear(system.join, both))


def adaptive_coattention(system: Any, words: Vector, tokens: Vector) -> list[Vector]:
    regions = np.tanh(linear(system.projection, tokens) + numbers(system.offset))
    hidden, fused = bilstm(system.tagger.lstm, words), []
    for h in hidden:
        seen = additive(system.visual_attention, h, regions)
        read = additive(system.textual_attention, seen, hidden)
        image, text = np.tanh(linear(system.of_image, seen)), np.tanh(linear(system.of_text, read))
        g = sigmoid(linear(system.fusion_gate, np.concatenate([image, text])))
        mixed = g * image + (1 - g) * text
        s = sigmoid(linear(system.filtration_gate, np.concatenate([h, mixed])))
        fused.append(np.concatenate([h, s * np.tanh(linear(system.filtered, mixed))]))
    return fused


def gated_fusion(system: Any, words: Vector, tokens: Vector) -> list[Vector]:
    regions = np.tanh(linear(system.projection, tokens) + numbers(system.offset))
    hidden, fused, alignment = bilstm(system.tagger.lstm, words), [], system.alignment
    for h in hidden:
        seen = additive(system.visual_attention, h, regions)
        asked = linear(alignment.of_query, np.concatenate([h, seen]))
        scores = linear(alignment.to_scores, np.tanh(asked + linear(alignment.of_key, hidden)))
        aligned = (softmax(scores) * hidden).sum(0)  # each feature has a softmax of its own
        gate = sigmoid(linear(system.gate, np.concatenate([aligned, seen])))
        fused.append(np.concatenate([h, gate * seen + (1 - gate) * aligned]))
    return fused


@pytest.mark.parametrize(
    "by_hand",
    [image_at_t0, modality_attention, visual_attention, adaptive_coattention, gated_fusion],
)
def test_emissions_are_those_of_the_equations(by_hand: Callable[..., Any]) -> None:
    system: Any = (model := tiny(by_hand.__name__)).system
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    posts = zip(post_words(system, batch), post_tokens(system, batch), strict=True)
    for found, (words, tokens) in zip(system(batch).emissions, posts, strict=True):
        fused = by_hand(system, words, tokens)
        assert_rows(found, [linear(system.tagger.to_tags, row) for row in fused])


def test_r_of_lstm_cnn_is_that_of_the_equations() -> None:
    system: Any = (model := tiny("lstm_cnn", tagger={**TAGGER, "lstm_layers": 1})).system
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    first, second = (layer for layer in system.classifier if isinstance(layer, nn.Linear))
    posts = zip(post_words(system, batch), post_tokens(system, batch), strict=True)
    for r, (words, tokens) in zip(system(batch).relation_score.tolist(), posts, strict=True):
        text = [np.zeros(system.lstm.hidden_size), *lstm_states(system.lstm, 0, "", words)][-1]
        hidden = np.maximum(linear(first, np.concatenate([text, mean(tokens)])), 0)
        expected = softmax(linear(second, hidden))[1] if len(tokens) else 0.0
        assert r == pytest.approx(expected, abs=1e-5)
