"""Gated fusion against its equations, feature by feature."""

from __future__ import annotations

import math

from rpbert.models.gated_fusion import GatedFusion
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
    softmax,
)


def aligned(system: GatedFusion, query: Vector, hidden: list[Vector]) -> Vector:
    """s_t: for each feature its own softmax over the words."""
    attention = system.alignment
    scores = []
    for h in hidden:
        inside = plus(linear(attention.of_query, query), linear(attention.of_key, h))
        scores.append(linear(attention.to_scores, each(math.tanh, inside)))
    found = []
    for feature in range(system.tagger.width):
        weights = softmax([score[feature] for score in scores])
        found.append(sum(w * h[feature] for w, h in zip(weights, hidden, strict=True)))
    return found


def by_the_equations(
    system: GatedFusion, hidden: list[Vector], tokens: list[Vector]
) -> list[Vector]:
    """The emissions of one post from h_t and its regions r_i."""
    offset = numbers(system.offset)
    regions = [each(math.tanh, plus(linear(system.projection, r), offset)) for r in tokens]
    emissions = []
    for h in hidden:
        seen = additive(system.visual_attention, h, regions, system.tagger.width)
        alignment = aligned(system, h + seen, hidden)
        gate = each(sigmoid, linear(system.gate, alignment + seen))
        summed = [g * v + (1 - g) * s for g, v, s in zip(gate, seen, alignment, strict=True)]
        emissions.append(linear(system.tagger.to_tags, h + summed))
    return emissions


def test_emissions_are_those_of_the_equations() -> None:
    model = tiny("gated_fusion")
    system = model.system
    assert isinstance(system, GatedFusion)
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).emissions
    hidden, tokens = post_hidden(system, batch), post_tokens(system, batch)
    for i in range(len(batch)):
        assert_rows(found[i], by_the_equations(system, hidden[i], tokens[i]))
