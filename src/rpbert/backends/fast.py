"""A system for inference alone: the same function, its heavy parts rebuilt for this processor.

Normalisation folded into convolutions, steps fused, weights packed once. In float32 the result
differs from the plain system's by rounding alone; bfloat16 and int8 are faster and less exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from rpbert.backends.fast_bert import FastBertLayer, FastEncoder
from rpbert.backends.fast_images import FastBlocks
from rpbert.backends.fast_lstm import FastBiLstm
from rpbert.backends.fast_words import RememberedWords
from rpbert.backends.folding import FoldedResNet
from rpbert.backends.int8 import RoundedLinear
from rpbert.backends.int8_bert import rounded_layers
from rpbert.backends.int8_resnet import RoundedResNet
from rpbert.backends.packed import Kit, Library, OneDnn
from rpbert.config.run import Precision
from rpbert.errors import InputError
from rpbert.evidence.resnet import ResNetBlocks
from rpbert.models.tagger import BiLstmCrf, System, WordEmbeddings
from rpbert.modules.encoder import BertEncoder, TextImageEncoder

if TYPE_CHECKING:
    from transformers import ResNetModel

Module = TypeVar("Module", bound=nn.Module)
Rebuild: TypeAlias = Callable[[nn.Module], nn.Module | None]
"""What takes the place of a module; None where it stays."""

FEW = 16
"""A linear layer of fewer outputs decides something, costs little, and stays as it is."""


def fast(system: System, precision: Precision, device: torch.device | str) -> System:
    """The system for inference; parameters that are not heavy it shares with the plain one.

    Changes of the others do not reach it. Whatever is rebuilt still gives float32.

    Args:
        precision: of the heavy parts; gate and CRF compute in float32, in int8 the biLSTM in
            bfloat16.
        device: where the parameters are.

    Raises:
        InputError: the device cannot do it.
    """
    device = torch.device(device)
    parts = _parts(precision, device)

    def rebuild(module: nn.Module) -> nn.Module | None:
        if isinstance(module, ResNetBlocks) and FoldedResNet.takes(module.resnet):
            return FastBlocks(module, parts.features(module.resnet))
        if isinstance(module, BertEncoder):
            return FastEncoder(module, parts.layers(module))
        if isinstance(module, TextImageEncoder):  # of another family: as it is, in float32
            return _rebuilt(module, lambda _: None)
        if isinstance(module, WordEmbeddings):
            return RememberedWords(module)
        if isinstance(module, BiLstmCrf) and device == torch.device("cpu"):
            return FastBiLstmCrf(module, parts.recurrent)
        # Subclasses are read by their weights in parts of PyTorch.
        if type(module) is nn.Linear and module.out_features >= FEW:
            return _Widened(parts.linear(module.weight, module.bias))
        return None

    twin = _rebuilt(system, lambda _: None).eval()  # whose mode is its own
    with torch.no_grad():
        return _rebuilt(twin, rebuild).eval()


class _Parts(Protocol):
    """Makes the heavy parts.

    Attributes:
        recurrent: type of number of the biLSTM.
    """

    @property
    def recurrent(self) -> torch.dtype: ...

    def features(self, resnet: ResNetModel) -> Callable[[Tensor], Tensor]:
        """Pixels to the last feature map."""

    def layers(self, encoder: BertEncoder) -> Iterable[nn.Module]:
        """The layers of a BERT."""

    def linear(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A linear layer of its own."""


class _Packed:
    """Parts in floating-point numbers."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.recurrent = kit.dtype

    def features(self, resnet: ResNetModel) -> Callable[[Tensor], Tensor]:
        return FoldedResNet.packed(resnet, self.kit)

    def layers(self, encoder: BertEncoder) -> Iterable[nn.Module]:
        return [FastBertLayer(layer, self.kit) for layer in encoder.bert.encoder.layer]

    def linear(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return self.kit.linear(weight, bias, "none")


class _Rounded:
    """Parts in 8-bit integers, on a CPU."""

    recurrent = torch.bfloat16

    def features(self, resnet: ResNetModel) -> Callable[[Tensor], Tensor]:
        return RoundedResNet(resnet)

    def layers(self, encoder: BertEncoder) -> Iterable[nn.Module]:
        return rounded_layers(encoder)

    def linear(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        return RoundedLinear(weight, bias)


def _parts(precision: Precision, device: torch.device) -> _Parts:
    packed = device.type == "cpu" and OneDnn.available()
    match precision:
        case "int8" if packed:
            return _Rounded()
        case "fp32" | "bf16":
            dtype = torch.float32 if precision == "fp32" else torch.bfloat16
            return _Packed(OneDnn(dtype) if packed else Library(dtype))
        case _:
            where = f"precision on {device.type}"
            expected = "auto, fp32 or bf16, or int8 on a CPU with oneDNN"
            raise InputError(where, repr(precision), expected)


class FastBiLstmCrf(BiLstmCrf):
    """`BiLstmCrf` whose biLSTM does not pack its posts."""

    def __init__(self, tagger: BiLstmCrf, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # its parts are those of `tagger`
        self.width, self.dropout = tagger.width, tagger.dropout
        self.to_tags, self.crf = tagger.to_tags, tagger.crf
        self.unpacked = FastBiLstm(tagger.lstm, dtype)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """The hidden vector h_t of every word. Shape: (B, W, D), (B, W) → (B, W, 2 * hidden)."""
        read: Tensor = self.unpacked(self.dropout(words), mask.sum(1))
        return read * mask[:, :, None]


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
