"""The oracle of the fusion systems: their arithmetic on lists of floats, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from rpbert.models.tagger import BiLstmSystem
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


def linear(layer: nn.Module, x: Vector) -> Vector:
    """W x + b, without b where the layer has none."""
    assert isinstance(layer, nn.Linear)
    bias = [0.0] * layer.out_features if layer.bias is None else numbers(layer.bias)
    rows = [numbers(row) for row in layer.weight]
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(rows, bias, strict=True)
    ]


def normed(norm: nn.Module, x: Vector) -> Vector:
    """Layer normalisation."""
    assert isinstance(norm, nn.LayerNorm)
    centre = sum(x) / len(x)
    spread = math.sqrt(sum((v - centre) ** 2 for v in x) / len(x) + norm.eps)
    scaled = [(v - centre) / spread for v in x]
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


def softmax(scores: Sequence[float]) -> Vector:
    """Σ exp over the scores that there are; nothing for none."""
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def weighted(weights: Sequence[float], vectors: Sequence[Vector], width: int) -> Vector:
    """Σ_i w_i v_i; zeros where there is none."""
    return [sum(w * v[d] for w, v in zip(weights, vectors, strict=True)) for d in range(width)]


def additive(attention: nn.Module, query: Vector, keys: list[Vector], width: int) -> Vector:
    """Σ_i softmax_i(w · tanh(W_q q + b + W_k k_i)) k_i."""
    asked = linear(attention.get_submodule("of_query"), query)
    scores = []
    for key in keys:
        inside = plus(asked, linear(attention.get_submodule("of_key"), key))
        scores += linear(attention.get_submodule("to_score"), each(math.tanh, inside))
    return weighted(softmax(scores), keys, width)


def post_tokens(system: nn.Module, batch: Batch) -> list[list[Vector]]:
    """The real visual tokens of each post."""
    tokens = system.get_submodule("evidence")(batch)
    return [
        [numbers(value) for value, real in zip(values, mask, strict=True) if real]
        for values, mask in zip(tokens.values, tokens.mask, strict=True)
    ]


def post_hidden(system: BiLstmSystem, batch: Batch) -> list[list[Vector]]:
    """h_t of each word of each post."""
    hidden = system.hidden(batch)
    return [
        [numbers(hidden[i, t]) for t in range(len(post.words))]
        for i, post in enumerate(batch.posts)
    ]


def mean(vectors: list[Vector], width: int) -> Vector:
    """Their mean; zeros for none."""
    return weighted([1 / len(vectors)] * len(vectors) if vectors else [], vectors, width)


def lstm_states(lstm: nn.LSTM, layer: int, suffix: str, inputs: list[Vector]) -> list[Vector]:
    """h_t of one direction of one layer (Hochreiter and Schmidhuber 1997, with forget gates).

    Args:
        suffix: empty for the forward direction, ``_reverse`` for the other, which the caller
            gives its inputs in reverse.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_rec, b_in, b_rec = (getattr(lstm, f"{n}_l{layer}{suffix}") for n in names)
    size = lstm.hidden_size
    rows_in, rows_rec = [numbers(r) for r in w_in], [numbers(r) for r in w_rec]
    bias = plus(numbers(b_in), numbers(b_rec))
    hidden, cell, states = [0.0] * size, [0.0] * size, []
    for x in inputs:
        total = [
            sum(w * v for w, v in zip(rows_in[k], x, strict=True))
            + sum(w * v for w, v in zip(rows_rec[k], hidden, strict=True))
            + bias[k]
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


def assert_rows(found: Tensor, expected: list[Vector]) -> None:
    """The first rows of a tensor are the expected ones, to 1e-5."""
    torch.testing.assert_close(
        found[: len(expected)].double(),
        torch.tensor(expected, dtype=torch.float64).view(len(expected), found.shape[1]),
        atol=1e-5,
        rtol=1e-5,
    )
