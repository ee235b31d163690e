"""Training on a CPU: the same layers, computed in less time.

The layers keep their names and parameters, so that nothing that is saved knows of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rpbert.backends.packed import OneDnn
from rpbert.evidence.resnet import ResNetBlocks

LOTS = 1 << 16
"""A dropped value is one of so many equally likely lots."""


def quicken(system: nn.Module) -> None:
    """Give a system on a CPU quick layers in the place of plain ones, which they equal."""
    for module in list(system.modules()):
        if isinstance(module, ResNetBlocks):
            # Else each step lays every weight out anew, forwards and backwards.
            module.resnet.to(memory_format=module.memory_format)
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, QuickDropout(child.p).train(child.training))
            elif type(child) is nn.Linear and OneDnn.available():
                setattr(module, name, QuickLinear(child).train(child.training))


class QuickDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) whose random bits are drawn 64 at a time.

    A value is dropped with probability p, rounded to a whole number of `LOTS`, and what is kept
    is divided by the probability of that.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or not 0 < self.p < 1 or values.device.type != "cpu":
            return F.dropout(values, self.p, self.training)
        dropped = min(max(round(self.p * LOTS), 1), LOTS - 1)
        kept: Tensor = _Kept.apply(values, dropped)  # type: ignore[no-untyped-call]
        return kept


class _Kept(torch.autograd.Function):
    """What the draw leaves of some values, scaled to the same mean."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped: int) -> Tensor:
        draws = torch.empty(-(-values.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        lots = draws.view(torch.int16)[: values.numel()].view(values.shape)
        mask = lots >= dropped - LOTS // 2
        ctx.save_for_backward(mask)
        ctx.scale = LOTS / (LOTS - dropped)
        return (values * mask).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None


class QuickLinear(nn.Linear):
    """A linear layer in float32 by oneDNN, which on some processors is faster than the usual."""

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)  # its parameters are those of `plain`
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, rows: Tensor) -> Tensor:
        """Shapes: (…, inputs) → (…, outputs)."""
        known = rows.dtype == torch.float32 and rows.device.type == "cpu"
        if not known or torch.is_autocast_enabled("cpu") or not rows.numel():
            return super().forward(rows)
        found: Tensor = _Product.apply(rows.flatten(0, -2), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return found.view(*rows.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """``x W^T + b`` of a matrix."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_rows = _product(gradient, weight.T, None)
        if ctx.needs_input_grad[1]:
            of_weight = gradient.T @ rows
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_rows, of_weight, of_bias


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found
