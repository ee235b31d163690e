"""The oracle of the systems: their arithmetic on lists of floats, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rpbert.types import Batch, Post
from tests.conftest import NO_EVIDENCE, made_posts

Vector: TypeAlias = list[float]


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
    """A vector as floats. Shape: (D,)."""
    found: Vector = values.detach().double().tolist()
    return found


def linear(layer: Any, x: Vector) -> Vector:
    """W x + b, without b where the layer has none."""
    bias = [0.0] * layer.out_features if layer.bias is None else numbers(layer.bias)
    rows = layer.weight.detach().double().tolist()
    products = (sum(w * v for w, v in zip(row, x, strict=True)) for row in rows)
    return [product + b for product, b in zip(products, bias, strict=True)]


def normed(norm: Any, x: Vector) -> Vector:
    """Layer normalisation."""
    mean = sum(x) / len(x)
    std = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + norm.eps)
    scaled = [(v - mean) / std for v in x]
    return plus(times(scaled, numbers(norm.weight)), numbers(norm.bias))


def each(function: Callable[[float], float], x: Vector) -> Vector:
    """A function of every number."""
    return [function(v) for v in x]


def plus(*vectors: Vector) -> Vector:
    """The sum of vectors."""
    return [sum(parts) for parts in zip(*vectors, strict=True)]


def times(*vectors: Vector) -> Vector:
    """The product of vectors, number by number."""
    return [math.prod(parts) for parts in zip(*vectors, strict=True)]


def sigmoid(x: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-x))


def gelu(x: float) -> float:
    """x Φ(x)."""
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def softmax(scores: Sequence[float]) -> Vector:
    """Σ exp over the scores that there are; nothing for none."""
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def weighted(weights: Sequence[float], vectors: Sequence[Vector], width: int) -> Vector:
    """Σ_i w_i v_i; zeros where there is none."""
    return [sum(w * v[d] for w, v in zip(weights, vectors, strict=True)) for d in range(width)]


def mean(vectors: list[Vector], width: int) -> Vector:
    """Their mean; zeros for none."""
    return weighted([1 / len(vectors)] * len(vectors) if vectors else [], vectors, width)


def additive(attention: Any, query: Vector, keys: list[Vector], width: int) -> Vector:
    """Σ_i softmax_i(w · tanh(W_q q + b + W_k k_i)) k_i."""
    asked = linear(attention.of_query, query)
    scores = []
    for key in keys:
        inside = plus(asked, linear(attention.of_key, key))
        scores += linear(attention.to_score, each(math.tanh, inside))
    return weighted(softmax(scores), keys, width)


def heads(attention: Any, queries: list[Vector], context: list[Vector], size: int) -> list[Vector]:
    """Scaled dot-product attention of several heads; zeros where there is no context."""
    keys = [linear(attention.key, c) for c in context]
    values = [linear(attention.value, c) for c in context]
    found = []
    for row in queries:
        query = linear(attention.query, row)
        attended: Vector = []
        for start in range(0, len(query), size):
            span = slice(start, start + size)
            scores = [sum(times(query[span], key[span])) / math.sqrt(size) for key in keys]
            attended += weighted(softmax(scores), [value[span] for value in values], size)
        found.append(attended)
    return found


def lstm_states(lstm: nn.LSTM, layer: int, suffix: str, inputs: list[Vector]) -> list[Vector]:
    """h_t of one direction of one layer (Hochreiter and Schmidhuber 1997, with forget gates).

    Args:
        suffix: empty for the forward direction, ``_reverse`` for the other, which the caller
            gives its inputs in reverse.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_rec, b_in, b_rec = (getattr(lstm, f"{n}_l{layer}{suffix}").tolist() for n in names)
    size = lstm.hidden_size
    hidden, cell, states = [0.0] * size, [0.0] * size, []
    for x in inputs:
        total = [
            sum(times(w_in[k], x)) + sum(times(w_rec[k], hidden)) + b_in[k] + b_rec[k]
            for k in range(4 * size)
        ]
        let_in = each(sigmoid, total[:size])
        forget = each(sigmoid, total[size : 2 * size])
        candidate = each(math.tanh, total[2 * size : 3 * size])
        let_out = each(sigmoid, total[3 * size :])
        cell = plus(times(forget, cell), times(let_in, candidate))
        hidden = times(let_out, each(math.tanh, cell))
        states.append(hidden)
    return states


def bilstm(lstm: nn.LSTM, states: list[Vector]) -> list[Vector]:
    """h_t of all layers in both directions."""
    for layer in range(lstm.num_layers):
        forward = lstm_states(lstm, layer, "", states)
        backward = lstm_states(lstm, layer, "_reverse", states[::-1])[::-1]
        states = [f + b for f, b in zip(forward, backward, strict=True)]
    return states


def post_words(system: Any, batch: Batch) -> list[list[Vector]]:
    """e_t of each word of each post."""
    embedded = system.embeddings(batch)
    return [
        [numbers(embedded[i, t]) for t in range(len(post.words))]
        for i, post in enumerate(batch.posts)
    ]


def post_tokens(system: Any, batch: Batch) -> list[list[Vector]]:
    """The real visual tokens of each post."""
    tokens = system.evidence(batch)
    return [
        [numbers(value) for value, real in zip(values, mask, strict=True) if real]
        for values, mask in zip(tokens.values, tokens.mask, strict=True)
    ]


def assert_rows(found: Tensor, expected: list[Vector]) -> None:
    """The first rows of a tensor are the expected ones, to 1e-5."""
    torch.testing.assert_close(
        found[: len(expected)].double(),
        torch.tensor(expected, dtype=torch.float64).view(len(expected), found.shape[1]),
        atol=1e-5,
        rtol=1e-5,
    )
