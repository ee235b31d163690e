"""The image before the words: each direction's LSTM, step by step."""

from __future__ import annotations

import torch
from torch import nn

from rpbert.models.image_at_t0 import ImageAtT0
from tests.conftest import NO_EVIDENCE, TAGGER, made_posts, tiny
from tests.models.plain import (
    Vector,
    assert_rows,
    linear,
    lstm_states,
    mean,
    numbers,
    post_tokens,
    posts_of_every_kind,
)


def one_layer(lstm: nn.LSTM, layer: int, inputs: list[Vector]) -> list[Vector]:
    forward = lstm_states(lstm, layer, "", inputs)
    backward = lstm_states(lstm, layer, "_reverse", inputs[::-1])[::-1]
    return [f + b for f, b in zip(forward, backward, strict=True)]


def by_the_equations(system: ImageAtT0, words: list[Vector], tokens: list[Vector]) -> list[Vector]:
    """The emissions of one post."""
    ends = []
    if tokens:
        ends = [linear(system.projection, mean(tokens, len(tokens[0])))]
    states = [*ends, *words, *ends]
    for layer in range(system.tagger.lstm.num_layers):
        states = one_layer(system.tagger.lstm, layer, states)
    of_words = states[len(ends) : len(ends) + len(words)]  # the image takes no tag
    return [linear(system.tagger.to_tags, state) for state in of_words]


def test_both_directions_read_the_image_first() -> None:
    for layers in (1, 2):
        model = tiny("image_at_t0", tagger={**TAGGER, "lstm_layers": layers})
        system = model.system
        assert isinstance(system, ImageAtT0)
        batch = model.collator()(posts_of_every_kind())
        found = system(batch).emissions
        embedded, tokens = system.embeddings(batch), post_tokens(system, batch)
        for i, post in enumerate(batch.posts):
            words = [numbers(embedded[i, t]) for t in range(len(post.words))]
            assert_rows(found[i], by_the_equations(system, words, tokens[i]))


def test_without_an_image_it_is_the_text_tagger() -> None:
    model, text = tiny("image_at_t0"), tiny("bilstm_crf")
    shared = {k: v for k, v in model.system.state_dict().items() if k in text.system.state_dict()}
    text.system.load_state_dict(shared)
    posts = made_posts(images=False)
    found = model.system(model.collator()(posts)).emissions
    expected = text.system(text.collator()(posts)).emissions
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_the_first_word_and_the_last_both_know_the_image() -> None:
    """In one layer, the image reaches every word by both directions."""
    model = tiny("image_at_t0", tagger={**TAGGER, "lstm_layers": 1})
    system = model.system
    assert isinstance(system, ImageAtT0)
    posts = made_posts(1)
    shown, blank = (
        system(model.collator()(p)).emissions for p in (posts, [posts[0].with_(**NO_EVIDENCE)])
    )
    assert ((shown - blank).abs().amax(-1) > 0).all()
