"""A ResNet over images: the blocks of its last feature map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rpbert.errors import InputError
from rpbert.storage.published import load_published

if TYPE_CHECKING:
    from transformers import ResNetModel

# The published shapes (He et al. 2016, "Deep residual learning for image recognition", Table 1).
RESNET_SHAPES: dict[str, dict[str, Any]] = {
    name: {
        "layer_type": layer_type,
        "depths": depths,
        "hidden_sizes": hidden_sizes,
        "embedding_size": 64,
    }
    for name, layer_type, depths, hidden_sizes in (
        ("resnet-18", "basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet-34", "basic", [3, 4, 6, 3], [64, 128, 256, 512]),
        ("resnet-50", "bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
        ("resnet-101", "bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
        ("resnet-152", "bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
    )
}
StatisticsPolicy: TypeAlias = Callable[[nn.Module], None]
"""Called on a network after every change between training and evaluation."""


def frozen_statistics(network: nn.Module) -> None:
    """Batch normalisation keeps its running mean and variance, also in training.

    For pretrained weights: the batches of fine-tuning (8 posts in the paper) are too small to
    estimate what ImageNet gave, and a post's features must not depend on its neighbours in the
    batch. Scale and shift still learn.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def trained_statistics(network: nn.Module) -> None:
    """Batch normalisation learns its statistics in training, as networks from scratch need."""


class BlockNetwork(nn.Module):
    """A network that makes a square grid of blocks of an image.

    Attributes:
        image_size: side of the images in pixels.
        side: blocks in a row, and in a column.
        tokens: blocks of an image, V.
        width: size of a block, d_v.
    """

    image_size: int
    side: int
    tokens: int
    width: int

    def freeze(self) -> None:
        """Keep what is gathered in training, such as batch statistics, as it is."""


class ResNetBlocks(BlockNetwork):
    """The blocks f_{i,j} of the last feature map of a ResNet, row by row (Eq. 1 and below it).

    Block (i, j), row i and column j counted from 0, is token ``i * columns + j``: 7 × 7 = 49
    tokens for an image of 224 × 224.

    Args:
        resnet: the network.
        image_size: side of the images in pixels.
        statistics: what batch normalisation does in training.
    """

    def __init__(
        self,
        resnet: ResNetModel,
        image_size: int = 224,
        statistics: StatisticsPolicy = frozen_statistics,
    ) -> None:
        super().__init__()
        self.resnet = resnet
        self.image_size = image_size
        self.statistics = statistics
        config = resnet.config
        self.width = config.hidden_sizes[-1]  # d_v
        # Convolutions are fastest with channels last; the weights follow by themselves, and stay
        # in the usual order for saving. But of fewer than 16 channels oneDNN then takes the
        # gradient of a strided 1 × 1 convolution beyond its memory (uxlfoundation/oneDNN#6035).
        narrow = min(config.embedding_size, *config.hidden_sizes) < 16
        self.memory_format = torch.contiguous_format if narrow else torch.channels_last
        # The stem halves twice, each stage after the first once; every halving rounds up.
        self.side = image_size  # blocks in a row, and in a column
        for _ in range(len(config.depths) + 1 + config.downsample_in_first_stage):
            self.side = (self.side + 1) // 2
        self.tokens = self.side**2  # V
        self.train(self.training)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        image_size: int = 224,
        statistics: StatisticsPolicy = frozen_statistics,
    ) -> Self:
        """A published ResNet, by hub name (``microsoft/resnet-152``) or folder.

        Raises:
            InputError: see `load_published`.
        """
        from transformers import ResNetModel

        expected = "a ResNet with safetensors weights, by hub name or folder"
        return cls(load_published(ResNetModel, source, expected), image_size, statistics)

    @classmethod
    def from_config(
        cls,
        shape: Mapping[str, Any],
        image_size: int = 224,
        statistics: StatisticsPolicy = trained_statistics,
    ) -> Self:
        """A ResNet of random weights, for example ``from_config(RESNET_SHAPES["resnet-18"])``.

        Args:
            shape: fields of transformers' ResNetConfig.
            image_size: side of the images in pixels.
            statistics: what batch normalisation does in training.

        Raises:
            InputError: `shape` is not that of a ResNet.
        """
        from huggingface_hub.errors import StrictDataclassError
        from transformers import ResNetConfig, ResNetModel

        known = ResNetConfig().to_dict()
        for key in shape:
            if key not in known:
                expected = ", ".join(sorted(RESNET_SHAPES["resnet-18"]))
                raise InputError("shape of the ResNet", f"key {key!r}", f"keys such as {expected}")
        try:
            config = ResNetConfig(**shape)
        except (StrictDataclassError, TypeError) as error:
            found = str(error)
            raise InputError("shape of the ResNet", found, "fields of ResNetConfig") from error
        # A longer list would be cut to the shorter one without a word.
        if len(config.depths) != len(config.hidden_sizes):
            found = f"{len(config.depths)} depths and {len(config.hidden_sizes)} hidden_sizes"
            raise InputError("shape of the ResNet", found, "one of each per stage")
        return cls(ResNetModel(config), image_size, statistics)

    def train(self, mode: bool = True) -> Self:
        """Switches between training and evaluation, and lets the policy on statistics speak."""
        super().train(mode)
        self.statistics(self.resnet)
        return self

    def freeze(self) -> None:
        """Batch normalisation keeps its statistics from here on."""
        self.statistics = frozen_statistics
        self.train(self.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v); the network rests if I is 0."""
        if pixels.shape[1:] != (3, self.image_size, self.image_size):
            size = self.image_size
            raise InputError("pixels", f"shape {tuple(pixels.shape)}", f"(I, 3, {size}, {size})")
        if not len(pixels):
            return pixels.new_zeros(0, self.tokens, self.width)
        pixels = pixels.contiguous(memory_format=self.memory_format)
        blocks: Tensor = self.resnet(pixels).last_hidden_state  # (I, d_v, rows, columns)
        return blocks.permute(0, 2, 3, 1).flatten(1, 2)
