"""A ResNet for inference on a CPU: normalization folded into convolutions packed for oneDNN.
With fixed statistics it is a factor and a summand a channel (Ioffe and Szegedy 2015, section 3.1),
which move into the convolution before it. In int8 a channel of a map is unsigned bytes of a fixed
scale, so that an image's features depend on no other. The range needs no picture: normalization
gives each channel mean β and std |γ|, and after a sum means and variances add. A scale a channel
moves into the weights before and after it (Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", sections 4.1 and 4.2). The range ends `STDS` from the
mean; rare values beyond are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from rpbert.backends.int8 import ZERO, quantize_weight, to_bytes

if TYPE_CHECKING:
    from transformers import ResNetModel
    from transformers.models.resnet.modeling_resnet import (
        ResNetBasicLayer,
        ResNetBottleNeckLayer,
        ResNetConvLayer,
        ResNetShortCut,
    )

    ConvLayer: TypeAlias = ResNetConvLayer | ResNetShortCut  # a convolution and its normalization
    Block: TypeAlias = ResNetBottleNeckLayer | ResNetBasicLayer

STDS = 8.0
LEVELS = 255
AROUND = 2.0  # the scale of a signed shortcut is so much larger than that of the sum it goes into


def folded(layer: ConvLayer) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that also normalizes."""
    convolution, norm = layer.convolution, layer.normalization
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
    return weight.detach().float(), bias.detach().float()


class Layouts:
    """The weight of a convolution as `pack` lays it out for single images and for several; with the
    wrong one oneDNN reorders it in each call, which can take longer than the convolution."""

    def __init__(self, pack: Callable[[list[int]], Tensor]) -> None:
        self.pack = pack
        self._made: dict[bool, Tensor] = {}

    def of(self, images: Tensor) -> Tensor:
        """For images (I, inputs, height, width), made when it is first needed."""
        single = len(images) == 1
        if single not in self._made:
            self._made[single] = self.pack(list(images.shape))
        return self._made[single]


class PackedConvolution:
    """``relu(normalized(images * W) + add)``, in `dtype`; `add` is overwritten by the result."""

    def __init__(self, layer: ConvLayer, relu: bool, dtype: torch.dtype) -> None:
        weight, bias = folded(layer)
        self.dtype, self.bias = dtype, bias.to(dtype)
        of = layer.convolution
        self.window = of.padding, of.stride, of.dilation, of.groups
        self.activation = "relu" if relu else "none"
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        self.layouts = Layouts(partial(reorder, weight.to(dtype).contiguous(), *self.window))

    def __call__(self, images: Tensor, add: Tensor | None = None) -> Tensor:
        """Shapes: (I, inputs, height, width) → (I, outputs, rows, columns)."""
        images = images.to(self.dtype)
        head = (images, self.layouts.of(images), self.bias, *self.window)
        ops = torch.ops.mkldnn
        found: Tensor
        if add is None:
            found = ops._convolution_pointwise(*head, self.activation, [], "")
        else:  # a ReLU always follows a sum
            found = ops._convolution_pointwise_.binary(add, *head, "add", 1.0, "relu", [], "")
        return found


class Int8Convolution:
    """A folded convolution from bytes to bytes, of channels with the scales `before` and `after`.
    `zero` is the byte that stands for 0 in the result; unless it has a sign, a ReLU follows. `add`
    is the scale of a map that is added, in scales of the result, and its 0."""

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
        steps, self.scale = quantize_weight(weight)
        self.bias = bias / after
        of = layer.convolution
        self.window = of.stride, of.padding, of.dilation, of.groups
        self.zero, self.add = zero, add
        self.zeros = torch.zeros(len(weight), dtype=torch.long)
        pack = torch.ops.onednn.qconv_prepack
        self.layouts = Layouts(partial(pack, steps, self.scale, 1.0, 0, *self.window))

    def __call__(self, images: Tensor, add: Tensor | None = None) -> Tensor:
        """Bytes to bytes; `add` is overwritten. Shape: (I, inputs, height, width)."""
        head = (images, 1.0, 0, self.layouts.of(images), self.scale, self.zeros)
        where = (self.bias, *self.window, 1.0, self.zero, torch.uint8)
        ops = torch.ops.onednn
        found: Tensor
        if add is None:
            relu = "none" if self.zero else "relu"
            found = ops.qconv_pointwise(*head, *where, relu, [], "")
        else:
            found = ops.qconv2d_pointwise.binary(
                *head, add, *where, *self.add, "sum", 1.0, "relu", [], ""
            )
        return found


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
        for block in _blocks(resnet):
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


class Int8ResNet:
    """Pixels to the last feature map of a ResNet in 8 bits; the first convolution is bfloat16."""

    def __init__(self, resnet: ResNetModel) -> None:
        stem = resnet.embedder
        self.stem, self.pool = PackedConvolution(stem.embedder, True, torch.bfloat16), stem.pooler
        blocks = list(_blocks(resnet))
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


def _blocks(resnet: ResNetModel) -> Iterator[Block]:
    return (block for stage in resnet.encoder.stages for block in stage.layers)


def _residual(block: Block, before: Tensor, after: Tensor) -> Residual:
    """A residual block in bytes. Shapes of the scales: (inputs,), (outputs,)."""
    *first, last = block.layer
    between = [before, *(Spread.after(layer).scale() for layer in first)]
    scales = zip(first, pairwise(between), strict=True)
    layers = [Int8Convolution(layer, *pair) for layer, pair in scales]
    if isinstance(block.shortcut, nn.Identity):
        return Residual(layers, Int8Convolution(last, between[-1], after), None)
    shortcut = Int8Convolution(block.shortcut, before, AROUND * after, ZERO)
    sum_of = Int8Convolution(last, between[-1], after, add=(AROUND, ZERO))
    return Residual(layers, sum_of, shortcut)


def _scales(stem: Spread, blocks: Sequence[Block]) -> list[Tensor]:
    """The scales of the maps before, between and after blocks; maps that are added share theirs."""
    total, streams = stem, [[stem.scale()]]
    for block in blocks:
        joined = isinstance(block.shortcut, nn.Identity)
        beside = total.rectified() if joined else Spread.after(block.shortcut)
        total = beside.plus(Spread.after(block.layer[-1]))
        if not joined:
            streams.append([])
        streams[-1].append(total.scale())
    return [torch.stack(stream).amax(0) for stream in streams for _ in stream]
