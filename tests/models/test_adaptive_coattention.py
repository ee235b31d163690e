"""Adaptive co-attention against its equations, word by word and region by region."""

from __future__ import annotations

import math

from rpbert.models.adaptive_coattention import AdaptiveCoAttention
from tests.conftest import tiny
from tests.models.plain import (
    Vector,
    additive,
    assert_rows,
    each,
    enliven,
    linear,
    numbers,
    plus,
    post_hidden,
    post_tokens,
    posts_of_every_kind,
    sigmoid,
    times,
)


def by_the_equations(
    system: AdaptiveCoAttention, hidden: list[Vector], tokens: list[Vector]
) -> list[Vector]:
    """The emissions of one post from h_t and its regions r_i."""
    width, offset = system.tagger.width, numbers(system.offset)
    regions = [each(math.tanh, plus(linear(system.projection, r), offset)) for r in tokens]
    emissions = []
    for h in hidden:
        seen = additive(system.visual_attention, h, regions, width)
        read = additive(system.textual_attention, seen, hidden, width)
        image = each(math.tanh, linear(system.of_image, seen))
        text = each(math.tanh, linear(system.of_text, read))
        g = sigmoid(linear(system.fusion_gate, image + text)[0])
        mixed = [g * a + (1 - g) * c for a, c in zip(image, text, strict=True)]
        s = sigmoid(linear(system.filtration_gate, h + mixed)[0])
        kept = times([s] * width, each(math.tanh, linear(system.filtered, mixed)))
        emissions.append(linear(system.tagger.to_tags, h + kept))
    return emissions


def test_emissions_are_those_of_the_equations() -> None:
    model = tiny("adaptive_coattention")
    system = model.system
    assert isinstance(system, AdaptiveCoAttention)
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).emissions
    hidden, tokens = post_hidden(system, batch), post_tokens(system, batch)
    assert [len(t) for t in tokens] == [16, 0, 16, 16]
    for i in range(len(batch)):
        assert_rows(found[i], by_the_equations(system, hidden[i], tokens[i]))


def test_words_of_a_post_look_at_the_image_differently() -> None:
    """With the terms joined instead of added, the softmax would leave nothing of the word."""
    model = tiny("adaptive_coattention")
    system = model.system
    assert isinstance(system, AdaptiveCoAttention)
    enliven(system)
    batch = model.collator()(posts_of_every_kind()[:1])
    tokens = system.evidence(batch)
    regions = (system.projection(tokens.values) + system.offset).tanh()
    seen = system.visual_attention(system.hidden(batch), regions, tokens.mask)[0]
    assert (seen[0] - seen[1]).abs().max() > 1e-3
