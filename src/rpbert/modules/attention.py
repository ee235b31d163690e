"""Attention that the fusion systems share, with exact zeros where nothing is real to attend to.
The additive blocks hold a number for each query, key and hidden unit at once. Queries therefore go
through in pieces, so that a post of thousands of words takes time and not memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.modules.encoder import bert_layer
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
    Shape: (B, V, d_v) → (B, d_v)."""
    real = tokens.mask[:, :, None]
    return (tokens.values * real).sum(1) / real.sum(1).clamp(min=1)


def with_whole_image(image: VisualTokens) -> VisualTokens:
    """Puts the mean of an image's regions first, in a box of all of it; nothing without an image.
    Shape: (S, V, d_v) → (S, 1 + V, d_v)."""
    mean = mean_token(image)[:, None]
    everything = image.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(mean.shape[0], 1, 4)
    return VisualTokens(
        torch.cat([mean, image.values], dim=1),
        torch.cat([image.mask.any(1, keepdim=True), image.mask], dim=1),
        torch.cat([everything, image.boxes], dim=1),
    )


def somewhere(mask: Tensor) -> Tensor:
    """The mask with everything real where nothing was, so that no softmax gives NaN.
    Shape: (S, V) → (S, V)."""
    return mask | ~mask.any(1, keepdim=True)


class _InPieces(nn.Module):
    """What both additive blocks share: tanh(W_q q + W_k k_i + b), for as many queries as fit."""

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__()
        self.of_query = nn.Linear(query, hidden)
        self.of_key = nn.Linear(key, hidden, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum of the keys for each query.
        Shape: (B, Q, query), (B, N, key), (B, N) → (B, Q, key)."""
        asked, offered = self.of_query(queries), self.of_key(keys)
        size = max(1, PIECE // max(offered.numel(), 1))
        return torch.cat(
            [
                self.weighted((piece[:, :, None] + offered[:, None]).tanh(), keys, mask)
                for piece in asked.split(size, dim=1)
            ],
            dim=1,
        )

    def weighted(self, inside: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Shape: (B, q, N, hidden), (B, N, key), (B, N) → (B, q, key)."""
        raise NotImplementedError


class AdditiveAttention(_InPieces):
    """α_i = softmax_i(w · tanh(W_q q + W_k k_i + b)) (Bahdanau, Cho and Bengio 2015)."""

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__(query, key, hidden)
        self.to_score = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax

    def weighted(self, inside: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """See `_InPieces`."""
        weights = masked_softmax(self.to_score(inside).squeeze(-1), mask[:, None])  # (B, q, N)
        return weights.to(keys.dtype) @ keys


class FeaturewiseAttention(_InPieces):
    """A weight for every feature of every key: "multi-dimensional" attention.
    P_i = softmax_i(W tanh(W_q q + W_k k_i + b)), a vector as wide as a key; the result is Σ_i P_i ⊙
    k_i (Shen et al. 2018, "DiSAN", Eq. 6 and 7)."""

    def __init__(self, query: int, key: int) -> None:
        super().__init__(query, key, key)
        self.to_scores = nn.Linear(key, key, bias=False)

    def weighted(self, inside: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """See `_InPieces`."""
        weights = masked_softmax(self.to_scores(inside), mask[:, None, :, None], dim=2)
        return (weights * keys[:, None]).sum(2)


class CrossAttention(nn.Module):
    """A layer of BERT whose queries are of one kind and whose keys and values of another.
    With itself as context it is BERT's own layer (Vaswani et al. 2017; Devlin et al. 2019)."""

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
        return bert_layer(self.layer, queries, context, mask, may_be_empty=True)
