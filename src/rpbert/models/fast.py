"""A system for inference alone: the same function, its heavy parts rebuilt for this processor.

Normalisation folded into convolutions, steps fused, weights packed once. In float32 the result
differs from the plain system's by rounding alone; bfloat16 is faster and less exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from rpbert.config import Precision
from rpbert.errors import InputError
from rpbert.models.tagger import System
from rpbert.modules.encoder import TextImageEncoder
from rpbert.modules.fast_bert import FastEncoder
from rpbert.modules.fast_images import FastBlocks
from rpbert.modules.folding import FoldedResNet
from rpbert.modules.packed import Kit, Library, OneDnn
from rpbert.modules.visual import ResNetBlocks

Module = TypeVar("Module", bound=nn.Module)
Rebuild: TypeAlias = Callable[[nn.Module], nn.Module | None]
"""What takes the place of a module; None where it stays."""

FEW = 16
"""A linear layer of fewer outputs decides something, costs little, and stays as it is."""


def fast(system: System, precision: Precision, device: torch.device | str) -> System:
    """The system for inference; what is not heavy it shares with the plain one.

    Changes of the heavy weights do not reach it. Whatever is rebuilt still gives float32.

    Args:
        precision: of the heavy parts; tagger, CRF and gate compute in float32.
        device: where the parameters are.

    Raises:
        InputError: the device cannot do it.
    """
    kit = kit_for(precision, torch.device(device))

    def rebuild(module: nn.Module) -> nn.Module | None:
        if isinstance(module, ResNetBlocks) and FoldedResNet.takes(module.resnet):
            return FastBlocks(module, FoldedResNet.packed(module.resnet, kit))
        if isinstance(module, TextImageEncoder):
            return FastEncoder(module, kit)
        # Subclasses are read by their weights in parts of PyTorch.
        if type(module) is nn.Linear and module.out_features >= FEW:
            return _Widened(kit.linear(module.weight, module.bias, "none"))
        return None

    with torch.no_grad():
        return _rebuilt(system, rebuild).eval()


def resolved(precision: Precision, device: torch.device | str) -> Precision:
    """What ``auto`` is on a device: bfloat16 where the processor multiplies it, else float32."""
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return "bf16" if native else "fp32"


def kit_for(precision: Precision, device: torch.device) -> Kit:
    """Makes the heavy layers of a device.

    Raises:
        InputError: an unknown precision.
    """
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    chosen = resolved(precision, device)
    if chosen not in types:
        raise InputError("precision", repr(precision), "auto, fp32 or bf16")
    if device.type == "cpu" and OneDnn.available():
        return OneDnn(types[chosen])
    return Library(types[chosen])


class _Widened(nn.Module):
    """A layer whose result is float32."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layer(rows)
        return found.float()


def _rebuilt(module: Module, rebuild: Rebuild) -> Module:
    """The module with some of those in it replaced; parameters are shared."""
    found = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        found.__dict__[name] = dict(module.__dict__[name])
    for name, child in module.named_children():
        found._modules[name] = rebuild(child) or _rebuilt(child, rebuild)
    return found
