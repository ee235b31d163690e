"""A ResNet in 8-bit integers, its ranges read off the statistics of its own normalisation.

A channel of a feature map is stored as unsigned bytes in steps that are fixed beforehand, so that
an image's features do not depend on other images. What it will hold is known without a picture:
normalisation gives each channel mean β and deviation |γ|, and behind a sum of branches means and
variances add. Steps of its own for each channel cost nothing: they move into the weights before
and behind it (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction", sections 4.1 and 4.2). A range reaches `DEVIATIONS` beyond the mean; the rare value
beyond it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from rpbert.backends.folding import fold
from rpbert.backends.int8 import ZERO, round_weight, to_bytes
from rpbert.backends.packed import Layouts, PackedConvolution, Window

if TYPE_CHECKING:
    from transformers.models.resnet.modeling_resnet import (
        ResNetBasicLayer,
        ResNetBottleNeckLayer,
        ResNetConvLayer,
        ResNetModel,
        ResNetShortCut,
    )

    Block: TypeAlias = ResNetBottleNeckLayer | ResNetBasicLayer
    Part: TypeAlias = ResNetConvLayer | ResNetShortCut

DEVIATIONS = 8.0
LEVELS = 255
AROUND = 2.0
"""Steps of a shortcut that has a sign are so much larger than those of the sum it goes into."""


class Spread(NamedTuple):
    """What each channel of a feature map holds over all images: mean and variance. Shape: (C,)."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def behind(cls, part: Part) -> Spread:
        """Behind a normalisation."""
        return cls(part.normalization.bias.detach(), part.normalization.weight.detach() ** 2)

    def plus(self, other: Spread) -> Spread:
        """Of the sum of two maps."""
        return Spread(self.mean + other.mean, self.variance + other.variance)

    def rectified(self) -> Spread:
        """Behind a ReLU, of normal variates."""
        mean, deviation = self.mean, self.variance.sqrt().clamp(min=1e-12)
        at = mean / deviation
        above = torch.special.ndtr(at)
        density = torch.exp(-at * at / 2) / (2 * torch.pi) ** 0.5
        first = mean * above + deviation * density
        second = (mean**2 + self.variance) * above + mean * deviation * density
        return Spread(first, (second - first**2).clamp(min=0))

    def steps(self) -> Tensor:
        """The step in which what a ReLU leaves of each channel is stored. Shape: (C,)."""
        reach = self.mean + DEVIATIONS * self.variance.sqrt()
        # A channel that is next to nothing would divide by next to nothing.
        return reach.clamp(min=1e-3 * float(reach.max())) / LEVELS


class RoundedConvolution:
    """A folded convolution from bytes to bytes; a ReLU follows unless the result has a sign.

    Args:
        part: convolution and normalisation.
        before: what a step of each channel is worth that goes in. Shape: (inputs,).
        after: and of each that comes out. Shape: (outputs,).
        zero: the byte that stands for 0 in the result.
        add: what a step of a map is worth that is added, in steps of the result, and its 0.
    """

    def __init__(
        self,
        part: Part,
        before: Tensor,
        after: Tensor,
        zero: int = 0,
        add: tuple[float, int] = (1.0, 0),
    ) -> None:
        weight, bias = (of.detach().float() for of in fold(part.convolution, part.normalization))
        self.window = Window.of(part.convolution)
        if self.window.groups > 1:
            raise ValueError("a convolution of groups")
        weight = weight * before[None, :, None, None] / after[:, None, None, None]
        steps, self.scale = round_weight(weight)
        self.bias = bias / after
        self.zero, self.add = zero, add
        self.zeros = torch.zeros(len(steps), dtype=torch.long)
        self.layouts = Layouts(steps, self._laid_out)

    def __call__(self, images: Tensor, add: Tensor | None = None) -> Tensor:
        """Bytes to bytes; `add` is overwritten. Shape: (I, inputs, height, width)."""
        stride, padding, dilation, groups = self.window
        head = (images, 1.0, 0, self.layouts.of(images.shape), self.scale, self.zeros)
        where = (self.bias, stride, padding, dilation, groups, 1.0, self.zero, torch.uint8)
        found: Tensor
        if add is None:
            relu = "none" if self.zero else "relu"
            found = torch.ops.onednn.qconv_pointwise(*head, *where, relu, [], "")
        else:
            found = torch.ops.onednn.qconv2d_pointwise.binary(
                *head, add, *where, *self.add, "sum", 1.0, "relu", [], ""
            )
        return found

    def _laid_out(self, steps: Tensor, shape: torch.Size) -> Tensor:
        stride, padding, dilation, groups = self.window
        laid_out: Tensor = torch.ops.onednn.qconv_prepack(
            steps, self.scale, 1.0, 0, stride, padding, dilation, groups, list(shape)
        )
        return laid_out


class RoundedResNet:
    """Pixels to the last feature map of a ResNet in 8 bits; the first convolution is bfloat16.

    Args:
        resnet: of the kind that `FoldedResNet` takes.
    """

    def __init__(self, resnet: ResNetModel) -> None:
        stem = resnet.embedder.embedder
        weight, bias = fold(stem.convolution, stem.normalization)
        window = Window.of(stem.convolution)
        self.stem = PackedConvolution(weight, bias, window, relu=True, dtype=torch.bfloat16)
        self.pool = resnet.embedder.pooler
        blocks = [block for stage in resnet.encoder.stages for block in stage.layers]
        steps = _steps(Spread.behind(stem), blocks)
        self.first, self.last = steps[0], steps[-1]
        self.blocks = [
            _Block(block, *pair) for block, pair in zip(blocks, pairwise(steps), strict=True)
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, height, width) → (I, d_v, rows, columns), float32."""
        found = self.pool(self.stem(pixels)).float() / self.first[:, None, None]
        found = to_bytes(found.clamp_(max=LEVELS).sub_(ZERO))
        for block in self.blocks:
            found = block(found)
        return found.float() * self.last[:, None, None]


class _Block:
    """A residual block in bytes.

    Args:
        before: steps of what comes in. Shape: (inputs,).
        after: steps of what goes out. Shape: (outputs,).
    """

    def __init__(self, block: Block, before: Tensor, after: Tensor) -> None:
        *first, last = block.layer
        between = [before, *(Spread.behind(part).steps() for part in first)]
        self.first = [
            RoundedConvolution(part, *steps)
            for part, steps in zip(first, pairwise(between), strict=True)
        ]
        self.around: RoundedConvolution | None = None
        add = (1.0, 0)
        if not isinstance(block.shortcut, nn.Identity):
            self.around = RoundedConvolution(block.shortcut, before, AROUND * after, ZERO)
            add = (AROUND, ZERO)
        self.last = RoundedConvolution(last, between[-1], after, add=add)

    def __call__(self, images: Tensor) -> Tensor:
        around = images if self.around is None else self.around(images)
        for layer in self.first:
            images = layer(images)
        return self.last(images, add=around)


def _steps(stem: Spread, blocks: Sequence[Block]) -> list[Tensor]:
    """The steps of the maps before, between and behind blocks.

    Maps that are added to one another, from one shortcut with weights to the next, share theirs.
    """
    total, streams = stem, [[stem.steps()]]
    for block in blocks:
        joined = isinstance(block.shortcut, nn.Identity)
        beside = total.rectified() if joined else Spread.behind(block.shortcut)
        total = beside.plus(Spread.behind(block.layer[-1]))
        if not joined:
            streams.append([])
        streams[-1].append(total.steps())
    return [torch.stack(stream).amax(0) for stream in streams for _ in stream]
