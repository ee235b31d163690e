"""The relation baseline: its equations, and that it learns and is scored by Task#1 alone."""

from __future__ import annotations

from torch import nn

from rpbert.models.lstm_cnn import LstmCnn
from tests.conftest import TAGGER, tiny
from tests.models.plain import (
    enliven,
    linear,
    lstm_states,
    mean,
    numbers,
    post_tokens,
    posts_of_every_kind,
    softmax,
)


def test_r_is_that_of_the_equations() -> None:
    model = tiny("lstm_cnn", tagger={**TAGGER, "lstm_layers": 1})
    system = model.system
    assert isinstance(system, LstmCnn)
    enliven(system)
    batch = model.collator()(posts_of_every_kind())
    found = system(batch).relation_score.detach()
    embedded, tokens = system.embeddings(batch), post_tokens(system, batch)
    first, second = (layer for layer in system.classifier if isinstance(layer, nn.Linear))
    for i, post in enumerate(batch.posts):
        if not tokens[i]:
            assert float(found[i]) == 0
            continue
        words = [numbers(embedded[i, t]) for t in range(len(post.words))]
        states = lstm_states(system.lstm, 0, "", words)
        text = states[-1] if states else [0.0] * system.lstm.hidden_size
        hidden = [max(x, 0.0) for x in linear(first, text + mean(tokens[i], len(tokens[i][0])))]
        assert abs(float(found[i]) - softmax(linear(second, hidden))[1]) < 1e-5
