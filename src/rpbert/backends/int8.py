"""Linear layers and BERT in 8-bit integers, for inference on a CPU.
Weights are quantized once with a scale an output, inputs as they come with a scale a row, so that a
token's result does not depend on the rest of the batch (Yao et al. 2022, "ZeroQuant"). Products and
their sums are exact."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.modules.encoder import BertEncoder, attend_heads

if TYPE_CHECKING:
    from transformers.models.bert.modeling_bert import BertLayer

STEPS = 127
ZERO = 128
"""The byte that stands for 0: oneDNN multiplies unsigned bytes, so rows are shifted by this."""
LOWEST_GELU = -0.17
"""GELU gives nothing below: 8 bits reach from here to the largest value of a row."""
ROWS_AT_A_TIME = 512
"""Tokens whose intermediate results stay in a processor's cache, enough for its products to pay."""
_TINY = torch.finfo(torch.float32).tiny


@cache
def weight_steps() -> int:
    """Steps of a weight to either side of 0: 127, or 63 where x86 processors without VNNI add two
    products of bytes in 16 bits and cut what is larger (oneDNN, "Nuances of int8 Computations")."""
    rows = torch.full((1, 64), 2 * STEPS + 1, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(torch.full((1, 64), STEPS, dtype=torch.int8), None)
    found = multiply(rows, 0, packed, torch.ones(1), torch.zeros(1, dtype=torch.long))
    return STEPS if found.item() == 64 * (2 * STEPS + 1) * STEPS else STEPS // 2


def multiply(rows: Tensor, zero: int, packed: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Rows of bytes, of which `zero` stands for 0, by packed int8 weights, times their scales."""
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, zero, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Each output's weights as int8 (outputs, …), and their scales (outputs,)."""
    scale = weight.flatten(1).abs().amax(1).clamp(min=_TINY) / weight_steps()
    steps = weight / scale.view(-1, *[1] * (weight.ndim - 1))
    return steps.round().to(torch.int8), scale


def to_bytes(steps: Tensor) -> Tensor:
    """Numbers from -128 to 127 as unsigned bytes, `ZERO` for 0; overwrites its argument.
    By way of int8, which takes a fifth of the time of rounding to uint8 at once."""
    return steps.round_().to(torch.int8).view(torch.uint8).add_(ZERO)


class Int8Linear(nn.Module):
    """``x W^T + b + add`` with x and W in 8 bits and the rest in float32.
    Inputs are divided, and their weights multiplied, by the share of the root of their largest
    absolute value `absmax` (inputs,), so that one of them does not coarsen all others (Xiao et al.
    2023, "SmoothQuant", Eq. 4 with α = 0.5). With `after_gelu` the input is the output of a
    GELU."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        absmax: Tensor | None = None,
        after_gelu: bool = False,
    ) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.smooth: Tensor | None = None
        if absmax is not None:
            smooth = (absmax.clamp(min=1e-5) / weight.abs().amax(0).clamp(min=1e-5)).sqrt()
            smooth = smooth / smooth.mean()
            weight, self.smooth = weight * smooth, 1 / smooth
        steps, self.scale = quantize_weight(weight)
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
        self.after_gelu = after_gelu
        if after_gelu:  # the lowest byte is not 0 but `LOWEST_GELU`, which the bias makes up for
            self.bias = self.bias + LOWEST_GELU * steps.sum(1) * self.scale
        self.zeros = torch.zeros(len(steps), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(steps, None)

    def forward(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (…, inputs), (…, outputs) → (…, outputs), float32."""
        quantized, scale, zero = self._quantized(rows.float())
        sums = multiply(quantized, zero, self.packed, self.scale, self.zeros)
        found = torch.addcmul(self.bias, sums, scale)
        return found if add is None else found.add_(add)

    def _quantized(self, rows: Tensor) -> tuple[Tensor, Tensor, int]:
        """The rows in bytes, the scale of each (…, 1), and the byte that is 0."""
        if self.after_gelu:
            span = rows.amax(-1, keepdim=True) - LOWEST_GELU
            steps = (rows - LOWEST_GELU).mul_((STEPS + ZERO) / span)
            return to_bytes(steps.sub_(ZERO)), span / (STEPS + ZERO), 0
        if self.smooth is not None:
            rows = rows * self.smooth
        absmax = rows.abs().amax(-1, keepdim=True).clamp(min=_TINY)
        return to_bytes(rows * (STEPS / absmax)), absmax / STEPS, ZERO


class Int8BertLayer(nn.Module):
    """What `bert_layer` computes, without dropout and with attention in float32.
    `absmax` and `inside` are the largest absolute values of the inputs of attention and of the
    feed-forward layers. Shape: (H,)."""

    def __init__(self, layer: BertLayer, absmax: Tensor, inside: Tensor) -> None:
        from transformers.activations import GELUActivation

        super().__init__()
        attention, output = layer.attention.self, layer.attention.output
        parts = (attention.query, attention.key, attention.value)
        weight, bias = (torch.cat([getattr(p, of) for p in parts]) for of in ("weight", "bias"))
        self.heads: int = attention.num_attention_heads
        self.query_key_value = Int8Linear(weight, bias, absmax)
        self.output = Int8Linear(output.dense.weight, output.dense.bias)
        self.after_attention: nn.LayerNorm = output.LayerNorm
        up, down = layer.intermediate, layer.output
        self.activation: nn.Module = up.intermediate_act_fn
        gelu = isinstance(self.activation, GELUActivation)
        self.up = Int8Linear(up.dense.weight, up.dense.bias, inside)
        self.down = Int8Linear(down.dense.weight, down.dense.bias, after_gelu=gelu)
        self.after: nn.LayerNorm = down.LayerNorm

    def forward(self, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Shapes: (S, Q, H), (S, N, H), (S, N) → (S, Q, H); see `bert_layer`."""
        pieces = max(1, -(-mask.numel() // ROWS_AT_A_TIME))
        parts = (torch.chunk(whole, pieces) for whole in (queries, hidden, mask))
        return torch.cat([self._posts(*part) for part in zip(*parts, strict=True)])

    def _posts(self, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.query_key_value(hidden).chunk(3, dim=-1)
        context = attend_heads(query[:, : queries.shape[1]], key, value, mask, self.heads)
        attended = self.after_attention(self.output(context, add=queries))
        found: Tensor = self.after(self.down(self.activation(self.up(attended)), add=attended))
        return found


def int8_layers(encoder: BertEncoder) -> list[Int8BertLayer]:
    """The layers of an encoder in 8 bits, the absmax of their inputs measured on random sub-words:
    which inputs are large depends on the weights, hardly on the text (Wei et al. 2022, "Outlier
    suppression")."""
    bert = encoder.bert
    norms: list[nn.Module] = [bert.embeddings.LayerNorm]
    for layer in bert.encoder.layer:
        norms += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
    absmax: list[Tensor] = []

    def measure(_norm: nn.Module, _given: object, found: Tensor) -> None:
        absmax.append(found.flatten(0, -2).abs().amax(0))

    hooks = [norm.register_forward_hook(measure) for norm in norms]
    draw = torch.Generator().manual_seed(0)
    length = min(24, encoder.max_length)
    pieces = torch.randint(bert.config.vocab_size, (16, length), generator=draw)
    encoder(encoder.embed(pieces), pieces >= 0, None)
    for hook in hooks:
        hook.remove()
    pairs = zip(bert.encoder.layer, absmax[0:-1:2], absmax[1::2], strict=True)
    return [Int8BertLayer(layer, *of_layer) for layer, *of_layer in pairs]
