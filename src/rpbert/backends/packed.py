"""A ResNet for inference on a CPU: normalization folded into convolutions packed for oneDNN.

With fixed statistics, normalization is one factor and one summand a channel (Ioffe and Szegedy
2015, section 3.1); both move into the weights and the bias of the convolution before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:
    from transformers import ResNetModel
    from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

    ConvLayer: TypeAlias = ResNetConvLayer | ResNetShortCut
    """A convolution and its normalization."""


def onednn_available() -> bool:
    """Whether this PyTorch has oneDNN and its packed layers."""
    packed = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return packed and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def folded(layer: ConvLayer) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that also normalizes."""
    convolution, norm = layer.convolution, layer.normalization
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
    return weight.detach().float(), bias.detach().float()


class Layouts:
    """The weight of a convolution, laid out for single images and for several.

    With the layout for the other case oneDNN reorders the weight in each call, which can take
    longer than the convolution.

    Args:
        lay_out: lays it out for images of a shape (I, inputs, height, width).
    """

    def __init__(self, lay_out: Callable[[torch.Size], Tensor]) -> None:
        self.lay_out = lay_out
        self._made: dict[bool, Tensor] = {}

    def of(self, shape: torch.Size) -> Tensor:
        """For images of a shape, made when it is first needed."""
        single = shape[0] == 1
        if single not in self._made:
            self._made[single] = self.lay_out(shape)
        return self._made[single]


class PackedConvolution:
    """``relu(normalized(images * W) + add)``, in `dtype`; `add` is overwritten by the result."""

    def __init__(self, layer: ConvLayer, relu: bool, dtype: torch.dtype) -> None:
        weight, bias = folded(layer)
        self.weight, self.bias = weight.to(dtype).contiguous(), bias.to(dtype)
        of = layer.convolution
        self.window = of.padding, of.stride, of.dilation, of.groups
        self.activation = "relu" if relu else "none"
        self.layouts = Layouts(self._laid_out)

    def __call__(self, images: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (I, inputs, height, width) → (I, outputs, rows, columns)."""
        images = images.to(self.weight.dtype)
        head = (images, self.layouts.of(images.shape), self.bias, *self.window)
        found: Tensor
        if add is None:
            found = torch.ops.mkldnn._convolution_pointwise(*head, self.activation, [], "")
        else:  # a ReLU always follows a sum
            found = torch.ops.mkldnn._convolution_pointwise_.binary(
                add, *head, "add", 1.0, "relu", [], ""
            )
        return found

    def _laid_out(self, shape: torch.Size) -> Tensor:
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        laid_out: Tensor = reorder(self.weight, *self.window, list(shape))
        return laid_out


class Residual(NamedTuple):
    """A residual block (He et al. 2016): convolutions, and the shortcut around them."""

    first: Sequence[Callable[[Tensor], Tensor]]
    last: Callable[[Tensor, Tensor], Tensor]
    shortcut: Callable[[Tensor], Tensor] | None

    def __call__(self, images: Tensor) -> Tensor:
        """Shape: (I, inputs, height, width) → (I, outputs, rows, columns)."""
        around = images if self.shortcut is None else self.shortcut(images)
        for layer in self.first:
            images = layer(images)
        return self.last(images, around)


class PackedResNet:
    """Pixels to the last feature map of a ResNet with fixed statistics and ReLUs."""

    def __init__(self, resnet: ResNetModel, dtype: torch.dtype) -> None:
        stem = resnet.embedder
        self.stem, self.pool = PackedConvolution(stem.embedder, True, dtype), stem.pooler
        self.blocks = []
        for block in (block for stage in resnet.encoder.stages for block in stage.layers):
            *first, last = (PackedConvolution(layer, True, dtype) for layer in block.layer)
            plain = isinstance(block.shortcut, nn.Identity)
            shortcut = None if plain else PackedConvolution(block.shortcut, False, dtype)
            self.blocks.append(Residual(first, last, shortcut))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, height, width) → (I, d_v, rows, columns)."""
        found: Tensor = self.pool(self.stem(pixels))
        for block in self.blocks:
            found = block(found)
        return found
