"""Image blocks for inference: on a CPU a few images at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rpbert.evidence.resnet import ResNetBlocks

AT_A_TIME = 4
"""Images whose feature maps stay in a processor's cache from one layer to the next."""


class FastBlocks(nn.Module):
    """`ResNetBlocks` by another network that computes the same features.

    Args:
        blocks: what is computed otherwise.
        features: pixels to the last feature map, of images that are channels last.
            Shapes: (I, 3, height, width) → (I, d_v, rows, columns).
    """

    def __init__(self, blocks: ResNetBlocks, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.image_size, self.side = blocks.image_size, blocks.side
        self.tokens, self.width = blocks.tokens, blocks.width
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v), float32."""
        if not len(pixels):
            return pixels.new_zeros(0, self.tokens, self.width)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        size = AT_A_TIME if pixels.device.type == "cpu" else len(pixels)
        parts = [self.features(part) for part in torch.split(pixels, size)]
        return torch.cat(parts).float().permute(0, 2, 3, 1).flatten(1, 2)
