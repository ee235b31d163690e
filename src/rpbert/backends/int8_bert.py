"""BERT in 8-bit integers, for inference on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.backends.fast_bert import attend
from rpbert.backends.int8 import RoundedLinear
from rpbert.modules.encoder import BertEncoder

if TYPE_CHECKING:
    from transformers.models.bert.modeling_bert import BertLayer

ROWS_AT_A_TIME = 512
"""Tokens whose intermediate results stay in a processor's cache from one step to the next, and are
enough for its products to pay."""


def rounded_layers(encoder: BertEncoder) -> list[RoundedBertLayer]:
    """The layers of an encoder in 8 bits, balanced by how far their inputs reach."""
    layers = encoder.bert.encoder.layer
    reaches = _reaches(encoder)
    pairs = zip(reaches[::2], reaches[1::2], strict=True)
    return [RoundedBertLayer(layer, *pair) for layer, pair in zip(layers, pairs, strict=True)]


class RoundedBertLayer(nn.Module):
    """`rpbert.backends.fast_bert.FastBertLayer` in 8 bits; attention and norms are float32.

    Args:
        layer: the parameters.
        reach: the largest value to be expected of each input of the attention. Shape: (H,).
        reach_inside: and of the feed-forward part. Shape: (H,).
    """

    def __init__(self, layer: BertLayer, reach: Tensor, reach_inside: Tensor) -> None:
        from transformers.activations import GELUActivation

        super().__init__()
        attention, output = layer.attention.self, layer.attention.output
        parts = (attention.query, attention.key, attention.value)
        self.heads: int = attention.num_attention_heads
        self.query_key_value = RoundedLinear(
            torch.cat([part.weight for part in parts]),
            torch.cat([part.bias for part in parts]),
            reach=reach,
        )
        self.output = RoundedLinear(output.dense.weight, output.dense.bias)
        self.after_attention: nn.LayerNorm = output.LayerNorm
        up, down = layer.intermediate, layer.output
        self.activation: nn.Module = up.intermediate_act_fn
        self.up = RoundedLinear(up.dense.weight, up.dense.bias, reach=reach_inside)
        gelu = isinstance(self.activation, GELUActivation)
        self.down = RoundedLinear(down.dense.weight, down.dense.bias, behind_gelu=gelu)
        self.after: nn.LayerNorm = down.LayerNorm

    def forward(self, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (S, Q, H), (S, N, H), (S, N) → (S, Q, H); see `FastBertLayer`."""
        tokens = hidden.shape[0] * hidden.shape[1]
        shares = max(1, -(-tokens // ROWS_AT_A_TIME))
        parts = (torch.chunk(whole, shares) for whole in (queries, hidden, mask))
        return torch.cat([self._posts(*part) for part in zip(*parts, strict=True)])

    def _posts(self, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.query_key_value(hidden).chunk(3, dim=-1)
        context = attend(query[:, : queries.shape[1]], key, value, mask, self.heads)
        attended = self.after_attention(self.output(context, add=queries))
        inside = self.activation(self.up(attended))
        found: Tensor = self.after(self.down(inside, add=attended))
        return found


def _reaches(encoder: BertEncoder) -> list[Tensor]:
    """The largest value of each input of attention and feed-forward part, layer by layer.

    Of rows of random word pieces: which few inputs reach far beyond the others is a matter of the
    weights, hardly of the text (Wei et al. 2022, "Outlier suppression").
    """
    bert = encoder.bert
    norms: list[nn.Module] = [bert.embeddings.LayerNorm]
    for layer in bert.encoder.layer:
        norms += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
    reaches: list[Tensor] = []
    handles = [
        norm.register_forward_hook(
            lambda _norm, _given, found: reaches.append(found.flatten(0, -2).abs().amax(0))
        )
        for norm in norms
    ]
    draw = torch.Generator().manual_seed(0)
    length = min(24, encoder.max_length)
    pieces = torch.randint(bert.config.vocab_size, (16, length), generator=draw)
    try:
        # All rows of every layer but the last, of which nothing is asked.
        encoder(encoder.embed(pieces), pieces >= 0, None)
    finally:
        for handle in handles:
            handle.remove()
    return reaches[:-1]
