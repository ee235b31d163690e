"""BERT for inference, in few and large steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.backends.packed import Kit
from rpbert.modules.encoder import BertEncoder, EncoderInput

if TYPE_CHECKING:
    from transformers.models.bert.modeling_bert import BertLayer

SHORT = 128
"""Up to so many tokens all scores of a row are held at once, which then is faster."""


class FastEncoder(BertEncoder):
    """A `BertEncoder` without gradients and dropout.

    Args:
        encoder: later changes to the weights of its layers are not seen.
        layers: compute what its layers do, as `FastBertLayer` does.
    """

    def __init__(self, encoder: BertEncoder, layers: Iterable[nn.Module]) -> None:
        nn.Module.__init__(self)  # its parts are those of `encoder`
        self.bert, self.image_type = encoder.bert, encoder.image_type
        self.width, self.input_width = encoder.width, encoder.input_width
        self.max_length, self.initial_weights = encoder.max_length, encoder.initial_weights
        self.fast_layers = nn.ModuleList(layers)

    @property
    def blocks(self) -> nn.ModuleList:
        """The fast layers."""
        return self.fast_layers

    def compute(self, layer: nn.Module, rows: int, read: EncoderInput) -> Tensor:
        """See `LayeredEncoder.compute`."""
        found: Tensor = layer(read.hidden[:, :rows], read.hidden, read.mask)
        return found

    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """In float32."""
        return super().layers(read, rows).float()


class FastBertLayer(nn.Module):
    """What `rpbert.modules.encoder.bert_layer` computes, without dropout.

    Key and value are one product, and the kit fuses activation and residual into those they
    follow.
    """

    def __init__(self, layer: BertLayer, kit: Kit) -> None:
        from transformers.activations import GELUActivation

        super().__init__()
        attention, output = layer.attention.self, layer.attention.output
        self.heads: int = attention.num_attention_heads
        self.query = kit.linear(attention.query.weight, attention.query.bias, "none")
        pair = attention.key, attention.value
        both = (torch.cat([part.weight for part in pair]), torch.cat([part.bias for part in pair]))
        self.key_value = kit.linear(*both, "none")
        self.output = kit.linear(output.dense.weight, output.dense.bias, "none")
        self.after_attention = kit.norm(output.LayerNorm)
        up, down = layer.intermediate, layer.output
        gelu = isinstance(up.intermediate_act_fn, GELUActivation)
        self.up = kit.linear(up.dense.weight, up.dense.bias, "gelu" if gelu else "none")
        self.activation: nn.Module = nn.Identity() if gelu else up.intermediate_act_fn
        self.down = kit.linear(down.dense.weight, down.dense.bias, "none")
        self.after = kit.norm(down.LayerNorm)

    def forward(self, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (S, Q, H), (S, N, H), (S, N) → (S, Q, H); see `bert_layer`."""
        key, value = self.key_value(hidden).chunk(2, dim=-1)
        context = attend(self.query(queries), key, value, mask, self.heads)
        attended = self.after_attention(self.output(context, add=queries))
        found: Tensor = self.after(self.down(self.activation(self.up(attended)), add=attended))
        return found


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention. Shapes: (S, Q, H), 2 × (S, N, H), (S, N) → (S, Q, H)."""

    def by_head(rows: Tensor) -> Tensor:  # (S, rows, H) → (S, heads, rows, width)
        return rows.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)

    query, key, value = by_head(query), by_head(key), by_head(value)
    if key.shape[2] > SHORT:
        found = F.scaled_dot_product_attention(query, key, value, mask[:, None, None, :])
    else:
        shut = query.new_zeros(mask.shape).masked_fill_(~mask, torch.finfo(query.dtype).min)
        shut = shut.repeat_interleave(heads, dim=0)[:, None]  # (S · heads, 1, N)
        batch = query.flatten(0, 1), key.flatten(0, 1).mT
        scores = torch.baddbmm(shut, *batch, alpha=query.shape[-1] ** -0.5)
        weights = scores.softmax(-1)
        found = torch.bmm(weights, value.flatten(0, 1)).view_as(query)
    return found.transpose(1, 2).flatten(2)
