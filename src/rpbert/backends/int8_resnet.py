"""A ResNet in 8-bit integers, its ranges read from the statistics of its own normalization.

A channel of a feature map is stored as unsigned bytes with a scale that is fixed beforehand, so
that an image's features do not depend on other images. The range needs no picture: normalization
gives each channel mean β and std |γ|, and after a sum of branches means and variances add. Scales
of its own for each channel cost nothing: they move into the weights before and after it (Nagel et
al. 2019, "Data-free quantization through weight equalization and bias correction", sections 4.1 and
4.2). A range ends `STDS` beyond the mean; the rare value beyond it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from rpbert.backends.int8 import ZERO, quantize_weight, to_bytes
from rpbert.backends.packed import Layouts, PackedConvolution, Residual, folded

if TYPE_CHECKING:
    from transformers import ResNetModel
    from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer

    from rpbert.backends.packed import ConvLayer

    Block: TypeAlias = ResNetBottleNeckLayer | ResNetBasicLayer

STDS = 8.0
LEVELS = 255
AROUND = 2.0
"""The scale of a signed shortcut is so much larger than that of the sum it goes into."""


class Spread(NamedTuple):
    """Mean and variance of each channel of a feature map over all images. Shape: (C,)."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def after(cls, layer: ConvLayer) -> Spread:
        """After a normalization."""
        return cls(layer.normalization.bias.detach(), layer.normalization.weight.detach() ** 2)

    def plus(self, other: Spread) -> Spread:
        """Of the sum of two maps."""
        return Spread(self.mean + other.mean, self.variance + other.variance)

    def rectified(self) -> Spread:
        """After a ReLU, of normal variates."""
        mean, std = self.mean, self.variance.sqrt().clamp(min=1e-12)
        at = mean / std
        above = torch.special.ndtr(at)
        density = torch.exp(-at * at / 2) / (2 * torch.pi) ** 0.5
        first = mean * above + std * density
        second = (mean**2 + self.variance) * above + mean * std * density
        return Spread(first, (second - first**2).clamp(min=0))

    def scale(self) -> Tensor:
        """The scale of each channel after a ReLU. Shape: (C,)."""
        highest = self.mean + STDS * self.variance.sqrt()
        # A channel that is next to nothing would divide by next to nothing.
        return highest.clamp(min=1e-3 * float(highest.max())) / LEVELS


class Int8Convolution:
    """A folded convolution from bytes to bytes; a ReLU follows unless the result has a sign.

    Args:
        before, after: scales of the channels of input and output. Shape: (inputs,), (outputs,).
        zero: the byte that stands for 0 in the result.
        add: scale of a map that is added, in scales of the result, and its 0.
    """

    def __init__(
        self,
        layer: ConvLayer,
        before: Tensor,
        after: Tensor,
        zero: int = 0,
        add: tuple[float, int] = (1.0, 0),
    ) -> None:
        weight, bias = folded(layer)
        weight = weight * before[None, :, None, None] / after[:, None, None, None]
        self.steps, self.scale = quantize_weight(weight)
        self.bias = bias / after
        of = layer.convolution
        self.window = of.stride, of.padding, of.dilation, of.groups
        self.zero, self.add = zero, add
        self.zeros = torch.zeros(len(weight), dtype=torch.long)
        self.layouts = Layouts(self._laid_out)

    def __call__(self, images: Tensor, add: Tensor | None = None) -> Tensor:
        """Bytes to bytes; `add` is overwritten. Shape: (I, inputs, height, width)."""
        head = (images, 1.0, 0, self.layouts.of(images.shape), self.scale, self.zeros)
        where = (self.bias, *self.window, 1.0, self.zero, torch.uint8)
        found: Tensor
        if add is None:
            relu = "none" if self.zero else "relu"
            found = torch.ops.onednn.qconv_pointwise(*head, *where, relu, [], "")
        else:
            found = torch.ops.onednn.qconv2d_pointwise.binary(
                *head, add, *where, *self.add, "sum", 1.0, "relu", [], ""
            )
        return found

    def _laid_out(self, shape: torch.Size) -> Tensor:
        pack = torch.ops.onednn.qconv_prepack
        laid_out: Tensor = pack(self.steps, self.scale, 1.0, 0, *self.window, list(shape))
        return laid_out


class Int8ResNet:
    """Pixels to the last feature map of a ResNet in 8 bits; the first convolution is bfloat16."""

    def __init__(self, resnet: ResNetModel) -> None:
        stem = resnet.embedder
        self.stem, self.pool = PackedConvolution(stem.embedder, True, torch.bfloat16), stem.pooler
        blocks = [block for stage in resnet.encoder.stages for block in stage.layers]
        scales = _scales(Spread.after(stem.embedder), blocks)
        self.first, self.last = scales[0], scales[-1]
        self.blocks = [
            _residual(block, *pair) for block, pair in zip(blocks, pairwise(scales), strict=True)
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, height, width) → (I, d_v, rows, columns), float32."""
        found = self.pool(self.stem(pixels)).float() / self.first[:, None, None]
        found = to_bytes(found.clamp_(max=LEVELS).sub_(ZERO))
        for block in self.blocks:
            found = block(found)
        return found.float() * self.last[:, None, None]


def _residual(block: Block, before: Tensor, after: Tensor) -> Residual:
    """A residual block in bytes. Shapes of the scales: (inputs,), (outputs,)."""
    *first, last = block.layer
    between = [before, *(Spread.after(layer).scale() for layer in first)]
    layers = [
        Int8Convolution(layer, *scales)
        for layer, scales in zip(first, pairwise(between), strict=True)
    ]
    if isinstance(block.shortcut, nn.Identity):
        return Residual(layers, Int8Convolution(last, between[-1], after), None)
    shortcut = Int8Convolution(block.shortcut, before, AROUND * after, ZERO)
    sum_of = Int8Convolution(last, between[-1], after, add=(AROUND, ZERO))
    return Residual(layers, sum_of, shortcut)


def _scales(stem: Spread, blocks: Sequence[Block]) -> list[Tensor]:
    """The scales of the maps before, between and after blocks.

    Maps that are added to one another, from one shortcut with weights to the next, share theirs.
    """
    total, streams = stem, [[stem.scale()]]
    for block in blocks:
        joined = isinstance(block.shortcut, nn.Identity)
        beside = total.rectified() if joined else Spread.after(block.shortcut)
        total = beside.plus(Spread.after(block.layer[-1]))
        if not joined:
            streams.append([])
        streams[-1].append(total.scale())
    return [torch.stack(stream).amax(0) for stream in streams for _ in stream]
