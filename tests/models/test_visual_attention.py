"""Visual attention against its equations, the query's LSTM included."""

from __future__ import annotations

import math

from rpbert.models.visual_attention import VisualAttention
from tests.conftest import tiny
from tests.models.plain import (
    Vector,
    additive,
    assert_rows,
    each,
    enliven,
    linear,
    lstm_states,
    numbers,
    plus,
    post_hidden,
    post_tokens,
    posts_of_every_kind,
    sigmoid,
    times,
)


def by_the_equations(
    system: VisualAttention, words: list[Vector], hidden: list[Vector], tokens: list[Vector]
) -> list[Vector]:
    """The emissions of one post from e_t, h_t and its visual tokens."""
    width = system.tagger.width
    states = lstm_states(system.asker, 0, "", words)
    query = states[-1] if states else [0.0] * width
    regions = [linear(system.projection, token) for token in tokens]
    context = additive(system.attention, query, regions, width)
    emissions = []
    for h in hidden:
        visual = each(sigmoid, linear(system.visual_gate, h + context))
        word = each(sigmoid, linear(system.word_gate, h + context))
        joined = each(math.tanh, linear(system.join, h + context))
        tuned = plus(times(word, h), times(visual, joined))
        emissions.append(linear(system.tagger.to_tags, tuned))
    return emissions


def test_emissions_are_those_of_the_equations() -> None:
    model = tiny("visual_attention")
    system = model.system
    assert isinstance(system, VisualAttention)
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).emissions
    hidden, tokens = post_hidden(system, batch), post_tokens(system, batch)
    embedded = system.embeddings(batch)
    for i, post in enumerate(batch.posts):
        words = [numbers(embedded[i, t]) for t in range(len(post.words))]
        assert_rows(found[i], by_the_equations(system, words, hidden[i], tokens[i]))
