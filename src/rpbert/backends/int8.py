"""Linear layers in 8-bit integers: weights rounded once, each row of the input as it comes.

Weights have one scale an output, in steps of a 127th of the largest (`weight_steps`); inputs one
scale a row, so that a token's result does not depend on what else is in the batch (Yao et al. 2022,
"ZeroQuant"). Products and their sums are exact; what is lost is lost in rounding.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.backends.packed import Activation

STEPS = 127
ZERO = 128  # rows are stored as unsigned bytes, shifted by this: what the processor multiplies
LOWEST_GELU = -0.17
"""GELU gives nothing below: 8 bits reach from here to the largest value of a row."""
_TINY = torch.finfo(torch.float32).tiny


@cache
def weight_steps() -> int:
    """Steps of a weight to either side of 0: 127, or 63 where more would not be added exactly.

    x86 processors without VNNI add two products of bytes in 16 bits and cut what is larger
    (oneDNN's guide, "Nuances of int8 Computations"); two of 255 · 63 still fit.
    """
    rows = torch.full((1, 64), 2 * STEPS + 1, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(torch.full((1, 64), STEPS, dtype=torch.int8), None)
    found = multiply(rows, 0, packed, torch.ones(1), torch.zeros(1, dtype=torch.long))
    return STEPS if found.item() == 64 * (2 * STEPS + 1) * STEPS else STEPS // 2


def multiply(rows: Tensor, zero: int, packed: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Rows of bytes by weights of bytes, times each output's scale.

    Args:
        zero: the byte of `rows` that stands for 0.
        packed: weights as ``qlinear_prepack`` lays them out.
        zeros: 0 for each output, which its weights stand for by 0.
    """
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, zero, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


def round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Each output's weights in `weight_steps` to the largest.

    Shapes: (outputs, …) → (outputs, …) int8, and what a step is worth (outputs,).
    """
    scale = weight.flatten(1).abs().amax(1).clamp(min=_TINY) / weight_steps()
    steps = weight / scale.view(-1, *[1] * (weight.ndim - 1))
    return steps.round().to(torch.int8), scale


def to_bytes(steps: Tensor) -> Tensor:
    """Numbers from -128 to 127 as unsigned bytes, `ZERO` for 0; overwrites what it is given.

    By way of int8, which takes a fifth of the time of rounding to uint8 at once.
    """
    return steps.round_().to(torch.int8).view(torch.uint8).add_(ZERO)


class RoundedLinear(nn.Module):
    """``activation(x W^T + b + add)`` with x and W in 8 bits and the rest in float32.

    Args:
        weight, bias: Shapes: (outputs, inputs), (outputs,).
        activation: what follows.
        reach: the largest value to be expected of each input. Inputs of large reach are then
            divided, and their weights multiplied, by its share of the root (Xiao et al. 2023,
            "SmoothQuant", Eq. 4 with α = 0.5), so that one of them does not take the steps of
            all others. Shape: (inputs,).
        behind_gelu: what comes in is the result of a GELU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: Activation = "none",
        reach: Tensor | None = None,
        behind_gelu: bool = False,
    ) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.shrink: Tensor | None = None
        if reach is not None:
            smooth = (reach.clamp(min=1e-5) / weight.abs().amax(0).clamp(min=1e-5)).sqrt()
            smooth = smooth / smooth.mean()
            weight, self.shrink = weight * smooth, 1 / smooth
        steps, self.scale = round_weight(weight)
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
        self.behind_gelu = behind_gelu
        if behind_gelu:  # the lowest byte is not 0 but `LOWEST_GELU`, which the bias makes up for
            self.bias = self.bias + LOWEST_GELU * steps.sum(1) * self.scale
        self.activation = activation
        self.zeros = torch.zeros(len(steps), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(steps, None)

    def forward(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (…, inputs), (…, outputs) → (…, outputs), float32."""
        bytes_, worth, zero = self._rounded(rows.float())
        sums = multiply(bytes_, zero, self.packed, self.scale, self.zeros)
        found = torch.addcmul(self.bias, sums, worth)
        if add is not None:
            found += add
        if self.activation == "relu":
            return found.relu_()
        return F.gelu(found) if self.activation == "gelu" else found

    def _rounded(self, rows: Tensor) -> tuple[Tensor, Tensor, int]:
        """The rows in bytes, what a step of each is worth (…, 1), and the byte that is 0."""
        if self.behind_gelu:
            reach = rows.amax(-1, keepdim=True) - LOWEST_GELU
            steps = (rows - LOWEST_GELU).mul_((STEPS + ZERO) / reach)
            return to_bytes(steps.sub_(ZERO)), reach / (STEPS + ZERO), 0
        if self.shrink is not None:
            rows = rows * self.shrink
        reach = rows.abs().amax(-1, keepdim=True).clamp(min=_TINY)
        return to_bytes(rows * (STEPS / reach)), reach / STEPS, ZERO
