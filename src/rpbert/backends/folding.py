"""A ResNet whose batch normalisation is part of its convolutions.

With fixed statistics, normalisation is one factor and one summand a channel (Ioffe and Szegedy
2015, section 3.1), and both can be moved into the weights and the bias of the convolution before
it. The function is the same; what is saved is a pass over every feature map, and its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.backends.packed import Kit, Layer, Window, followed

if TYPE_CHECKING:
    from transformers import ResNetModel
    from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer

Convolve: TypeAlias = Callable[[nn.Conv2d, nn.BatchNorm2d, bool], Layer]
"""Makes a layer of a convolution and its normalisation, with or without a ReLU."""


def fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both; gradients reach all that went in."""
    assert normalisation.running_mean is not None  # of a network with statistics
    assert normalisation.running_var is not None
    deviation = (normalisation.running_var + normalisation.eps).sqrt()
    factor = normalisation.weight / deviation
    shift = normalisation.bias - normalisation.running_mean * factor
    if convolution.bias is not None:
        shift = shift + convolution.bias * factor
    return convolution.weight * factor[:, None, None, None], shift


class TrainedConvolution:
    """A convolution that is folded anew each time, for weights that learn.

    Of its result only what the ReLU lets through is kept for the gradient.
    """

    def __init__(self, convolution: nn.Conv2d, normalisation: nn.BatchNorm2d, relu: bool) -> None:
        self.parts = convolution, normalisation
        self.window = Window.of(convolution)
        self.relu = relu

    def __call__(self, rows: Tensor, add: Tensor | None = None) -> Tensor:
        """See `Layer`."""
        weight, bias = fold(*self.parts)
        found = F.conv2d(rows, weight, bias, *self.window)
        return followed(found, add, "relu" if self.relu else "none")


class FoldedResNet:
    """Pixels to the last feature map of a ResNet (He et al. 2016), normalisation folded.

    Args:
        resnet: its statistics must not change any more, and its activation is a ReLU.
        convolve: makes the layers.
    """

    def __init__(self, resnet: ResNetModel, convolve: Convolve) -> None:
        stem = resnet.embedder.embedder
        self.stem = convolve(stem.convolution, stem.normalization, True)
        self.pool = resnet.embedder.pooler
        layers = [layer for stage in resnet.encoder.stages for layer in stage.layers]
        self.blocks = [_Block(layer, convolve) for layer in layers]

    @staticmethod
    def takes(resnet: ResNetModel) -> bool:
        """Whether the network is of the kind that can be folded."""
        return bool(resnet.config.hidden_act == "relu")

    @classmethod
    def trained(cls, resnet: ResNetModel) -> FoldedResNet:
        """For training: follows the weights of `resnet`, and gives them their gradients."""
        return cls(resnet, TrainedConvolution)

    @classmethod
    def packed(cls, resnet: ResNetModel, kit: Kit) -> FoldedResNet:
        """For inference: folded once, laid out by `kit`."""

        def convolve(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d, relu: bool) -> Layer:
            with torch.no_grad():
                weight, bias = fold(convolution, normalisation)
            return kit.convolution(weight, bias, Window.of(convolution), relu)

        return cls(resnet, convolve)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, height, width) → (I, d_v, rows, columns)."""
        found: Tensor = self.pool(self.stem(pixels))
        for block in self.blocks:
            found = block(found)
        return found


class _Block:
    """A residual block: convolutions, and what goes around them."""

    def __init__(self, block: ResNetBottleNeckLayer | ResNetBasicLayer, convolve: Convolve) -> None:
        *first, last = block.layer
        self.first = [convolve(part.convolution, part.normalization, True) for part in first]
        self.last = convolve(last.convolution, last.normalization, True)  # after the sum
        around = block.shortcut
        self.around: Layer | None = None
        if not isinstance(around, nn.Identity):
            self.around = convolve(around.convolution, around.normalization, False)

    def __call__(self, images: Tensor) -> Tensor:
        around = images if self.around is None else self.around(images)
        for layer in self.first:
            images = layer(images)
        return self.last(images, add=around)
