"""Attention that the fusion systems share, with exact zeros where nothing is real to attend to.

The additive blocks hold a number for each query, key and hidden unit at once. Queries therefore go
through in pieces, so that a post of thousands of words takes time and not memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.modules.encoder import attend_if_any
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertConfig

PIECE = 1 << 24  # numbers that an additive block holds at a time, 64 MB


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over what is real, zeros where nothing is; `mask` broadcasts to `scores`."""
    lowest = torch.finfo(scores.dtype).min  # finite, for a softmax of infinities only is NaN
    return scores.masked_fill(~mask, lowest).softmax(dim) * mask


def mean_token(tokens: VisualTokens) -> Tensor:
    """The mean of each post's visual tokens, of blocks the global image vector; zeros without.

    Shape: (B, V, d_v) → (B, d_v).
    """
    real = tokens.mask[:, :, None]
    return (tokens.values * real).sum(1) / real.sum(1).clamp(min=1)


class AdditiveAttention(nn.Module):
    """α_i = softmax_i(w · tanh(W_q q + W_k k_i + b)) (Bahdanau, Cho and Bengio 2015).

    Args:
        query, key, hidden: widths of q, of k_i and inside the tanh.
    """

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__()
        self.of_query = nn.Linear(query, hidden)
        self.of_key = nn.Linear(key, hidden, bias=False)
        self.to_score = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum of the keys for each query.

        Shape: (B, Q, query), (B, N, key), (B, N) → (B, Q, key).
        """
        asked, offered = self.of_query(queries), self.of_key(keys)
        pieces = []
        for piece in in_pieces(asked, offered):
            scores = self.to_score((piece[:, :, None] + offered[:, None]).tanh())  # (B, q, N, 1)
            weights = masked_softmax(scores.squeeze(-1), mask[:, None])
            pieces.append(weights.to(keys.dtype) @ keys)
        return torch.cat(pieces, dim=1)


class FeaturewiseAttention(nn.Module):
    """A weight for every feature of every key: "multi-dimensional" attention.

    P_i = softmax_i(W tanh(W_q q + W_k k_i + b)), a vector as wide as a key; the result is
    Σ_i P_i ⊙ k_i (Shen et al. 2018, "DiSAN", Eq. 6 and 7; the bias outside the tanh cancels in the
    softmax). `query` and `key` are widths.
    """

    def __init__(self, query: int, key: int) -> None:
        super().__init__()
        self.of_query = nn.Linear(query, key)
        self.of_key = nn.Linear(key, key, bias=False)
        self.to_scores = nn.Linear(key, key, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, Q, query), (B, N, key), (B, N) → (B, Q, key)."""
        asked, offered = self.of_query(queries), self.of_key(keys)
        pieces = []
        for piece in in_pieces(asked, offered):
            scores = self.to_scores((piece[:, :, None] + offered[:, None]).tanh())
            weights = masked_softmax(scores, mask[:, None, :, None], dim=2)  # (B, q, N, key)
            pieces.append((weights * keys[:, None]).sum(2))
        return torch.cat(pieces, dim=1)


def in_pieces(queries: Tensor, keys: Tensor) -> Iterator[Tensor]:
    """Queries (B, Q, D), so many at a time that each with each key (B, N, D) is no large tensor."""
    size = max(1, PIECE // max(keys.numel(), 1))
    for start in range(0, max(queries.shape[1], 1), size):
        yield queries[:, start : start + size]


class CrossAttention(nn.Module):
    """A layer of BERT whose queries are of one kind and whose keys and values of another.

    With itself as context it is BERT's own layer (Vaswani et al. 2017; Devlin et al. 2019).
    """

    def __init__(self, config: BertConfig) -> None:
        from transformers.models.bert.modeling_bert import BertLayer

        super().__init__()
        self.layer = BertLayer(config)
        for module in self.layer.modules():
            if isinstance(module, nn.Linear):  # as BERT is initialised
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, Q, H), (B, N, H), (B, N) → (B, Q, H)."""
        layer = self.layer
        found = attend_if_any(layer.attention.self, queries, context, mask)
        attended = layer.attention.output(found, queries)
        output: Tensor = layer.output(layer.intermediate(attended), attended)
        return output
