"""Each system without a text encoder against its equations, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from tests.conftest import TAGGER, tiny
from tests.models.plain import (
    Vector,
    additive,
    assert_rows,
    bilstm,
    each,
    enliven,
    linear,
    lstm_states,
    mean,
    normed,
    numbers,
    plus,
    post_tokens,
    post_words,
    posts_of_every_kind,
    sigmoid,
    softmax,
    times,
    weighted,
)


def image_at_t0(system: Any, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
    ends = [linear(system.projection, mean(tokens, len(tokens[0])))] if tokens else []
    states = bilstm(system.tagger.lstm, [*ends, *words, *ends])
    return states[len(ends) : len(ends) + len(words)]  # the image takes no tag


def modality_attention(system: Any, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
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
        there = 3 if tokens else 2
        mixed.append(weighted(softmax(scores[:there]), [form, spelling, seen][:there], width))
    return bilstm(system.tagger.lstm, mixed)


def visual_attention(system: Any, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
    width = system.tagger.width
    query = [[0.0] * width, *lstm_states(system.asker, 0, "", words)][-1]
    regions = [linear(system.projection, token) for token in tokens]
    context = additive(system.attention, query, regions, width)
    fused = []
    for h in bilstm(system.tagger.lstm, words):
        visual = each(sigmoid, linear(system.visual_gate, h + context))
        word = each(sigmoid, linear(system.word_gate, h + context))
        joined = each(math.tanh, linear(system.join, h + context))
        fused.append(plus(times(word, h), times(visual, joined)))
    return fused


def regions_of(system: Any, tokens: list[Vector]) -> list[Vector]:
    offset = numbers(system.offset)
    return [each(math.tanh, plus(linear(system.projection, r), offset)) for r in tokens]


def adaptive_coattention(system: Any, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
    width, regions = system.tagger.width, regions_of(system, tokens)
    hidden = bilstm(system.tagger.lstm, words)
    fused = []
    for h in hidden:
        seen = additive(system.visual_attention, h, regions, width)
        read = additive(system.textual_attention, seen, hidden, width)
        image = each(math.tanh, linear(system.of_image, seen))
        text = each(math.tanh, linear(system.of_text, read))
        g = sigmoid(linear(system.fusion_gate, image + text)[0])
        mixed = [g * a + (1 - g) * c for a, c in zip(image, text, strict=True)]
        s = sigmoid(linear(system.filtration_gate, h + mixed)[0])
        fused.append(h + times([s] * width, each(math.tanh, linear(system.filtered, mixed))))
    return fused


def gated_fusion(system: Any, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
    width, regions = system.tagger.width, regions_of(system, tokens)
    hidden = bilstm(system.tagger.lstm, words)
    fused = []
    for h in hidden:
        seen = additive(system.visual_attention, h, regions, width)
        asked = linear(system.alignment.of_query, h + seen)
        inside = [plus(asked, linear(system.alignment.of_key, other)) for other in hidden]
        scores = [linear(system.alignment.to_scores, each(math.tanh, x)) for x in inside]
        aligned = []
        for feature in range(width):  # each has a softmax of its own
            weights = softmax([score[feature] for score in scores])
            aligned.append(sum(w * o[feature] for w, o in zip(weights, hidden, strict=True)))
        gate = each(sigmoid, linear(system.gate, aligned + seen))
        summed = [g * v + (1 - g) * s for g, v, s in zip(gate, seen, aligned, strict=True)]
        fused.append(h + summed)
    return fused


@pytest.mark.parametrize(
    "by_hand",
    [image_at_t0, modality_attention, visual_attention, adaptive_coattention, gated_fusion],
)
def test_emissions_are_those_of_the_equations(
    by_hand: Callable[[Any, list[Vector], list[Vector]], list[Vector]],
) -> None:
    model = tiny(by_hand.__name__)
    system: Any = model.system
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).emissions
    for i, (words, tokens) in enumerate(
        zip(post_words(system, batch), post_tokens(system, batch), strict=True)
    ):
        fused = by_hand(system, words, tokens)
        assert_rows(found[i], [linear(system.tagger.to_tags, row) for row in fused])


def test_r_of_lstm_cnn_is_that_of_the_equations() -> None:
    model = tiny("lstm_cnn", tagger={**TAGGER, "lstm_layers": 1})
    system: Any = model.system
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).relation_score.tolist()
    first, second = (layer for layer in system.classifier if isinstance(layer, nn.Linear))
    for r, words, tokens in zip(
        found, post_words(system, batch), post_tokens(system, batch), strict=True
    ):
        text = [[0.0] * system.lstm.hidden_size, *lstm_states(system.lstm, 0, "", words)][-1]
        image = mean(tokens, system.evidence.width)
        hidden = [max(x, 0.0) for x in linear(first, text + image)]
        expected = softmax(linear(second, hidden))[1] if tokens else 0.0
        assert r == pytest.approx(expected, abs=1e-5)
