"""The oracle of the systems: their arithmetic in NumPy and float64, one post at a time."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rpbert.types import Batch, Post
from tests.conftest import NO_EVIDENCE, made_posts

Vector: TypeAlias = NDArray[np.float64]
"""A vector, or rows of vectors."""


def posts_of_every_kind() -> list[Post]:
    """Posts of several lengths: two with an image, one without, one without words."""
    posts = made_posts(4)
    posts[1] = posts[1].with_(**NO_EVIDENCE)
    posts[3] = Post.from_words("empty", (), image=posts[3].image, caption="a tower")
    return posts


def enliven(system: nn.Module) -> None:
    """Large random weights: fresh ones attend to everything alike, and hide what they ask for."""
    for module in system.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 / math.sqrt(module.in_features))


def numbers(values: Tensor) -> Vector:
    """A tensor in float64."""
    found: Vector = values.detach().double().numpy()
    return found


def linear(layer: Any, x: Vector) -> Vector:
    """W x + b of each row, without b where the layer has none."""
    product: Vector = x @ numbers(layer.weight).T
    return product if layer.bias is None else product + numbers(layer.bias)


def normed(norm: Any, x: Vector) -> Vector:
    """Layer normalisation of each row."""
    centred = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    found: Vector = centred / std * numbers(norm.weight) + numbers(norm.bias)
    return found


def sigmoid(x: Vector) -> Vector:
    """The logistic function."""
    found: Vector = 1 / (1 + np.exp(-x))
    return found


def gelu(x: Vector) -> Vector:
    """x Φ(x)."""
    found: Vector = x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))) / 2
    return found


def softmax(scores: Vector) -> Vector:
    """Over the rows that there are; nothing for none."""
    powers: Vector = np.exp(scores - scores.max(0, initial=-np.inf))
    found: Vector = powers / powers.sum(0)
    return found


def mean(rows: Vector) -> Vector:
    """Their mean; zeros for none."""
    found: Vector = rows.sum(0) / max(len(rows), 1)
    return found


def additive(attention: Any, query: Vector, keys: Vector) -> Vector:
    """Σ_i softmax_i(w · tanh(W_q q + b + W_k k_i)) k_i."""
    inside = linear(attention.of_query, query) + linear(attention.of_key, keys)
    return softmax(linear(attention.to_score, np.tanh(inside))[:, 0]) @ keys


def heads(attention: Any, queries: Vector, context: Vector, size: int) -> Vector:
    """Scaled dot-product attention of several heads; zeros where there is no context."""
    query, key = linear(attention.query, queries), linear(attention.key, context)
    value, found = linear(attention.value, context), np.zeros_like(query)
    for row, start in product(range(len(query)), range(0, query.shape[1], size)):
        span = slice(start, start + size)
        weights = softmax(key[:, span] @ query[row, span] / math.sqrt(size))
        found[row, span] = weights @ value[:, span]
    return found


def lstm_states(lstm: nn.LSTM, layer: int, suffix: str, inputs: Vector) -> Vector:
    """h_t of one direction of one layer (Hochreiter and Schmidhuber 1997, with forget gates).
    The suffix of the other direction is ``_reverse``; the caller reverses its inputs."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_rec, b_in, b_rec = (numbers(getattr(lstm, f"{n}_l{layer}{suffix}")) for n in names)
    hidden = cell = np.zeros(lstm.hidden_size)
    states = np.zeros((len(inputs), lstm.hidden_size))
    for t, x in enumerate(inputs):
        let_in, forget, candidate, let_out = np.split(w_in @ x + w_rec @ hidden + b_in + b_rec, 4)
        cell = sigmoid(forget) * cell + sigmoid(let_in) * np.tanh(candidate)
        states[t] = hidden = sigmoid(let_out) * np.tanh(cell)
    return states


def bilstm(lstm: nn.LSTM, states: Vector) -> Vector:
    """h_t of all layers in both directions."""
    for layer in range(lstm.num_layers):
        backward = lstm_states(lstm, layer, "_reverse", states[::-1])[::-1]
        states = np.hstack([lstm_states(lstm, layer, "", states), backward])
    return states


def post_words(system: Any, batch: Batch) -> list[Vector]:
    """e_t of each word of each post."""
    rows = zip(system.embeddings(batch), batch.posts, strict=True)
    return [numbers(row[: len(post.words)]) for row, post in rows]


def post_tokens(system: Any, batch: Batch) -> list[Vector]:
    """The real visual tokens of each post."""
    tokens = system.evidence(batch)
    return [numbers(row[real]) for row, real in zip(tokens.values, tokens.mask, strict=True)]


def assert_rows(found: Tensor, expected: Any, rtol: float = 1e-5) -> None:
    """The first rows of a tensor are the expected ones, to 1e-5."""
    rows = np.reshape(expected, (len(expected), found.shape[1]))
    np.testing.assert_allclose(numbers(found[: len(rows)]), rows, atol=1e-5, rtol=rtol)
