"""Images as evidence: the blocks of a network's feature map, or one vector, their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal, Self

import torch
from pydantic import AliasChoices, Field, PositiveFloat, model_validator
from torch import Tensor

from rpbert.config.model import exactly_one
from rpbert.data.images import Preprocessing
from rpbert.errors import InputError
from rpbert.evidence.base import Evidence, NetworkSettings, SeeingEvidence, TextTable, whole_image
from rpbert.evidence.networks import (
    RESNET_SHAPES,
    BlockNetwork,
    ResNetBlocks,
    published_network,
    random_network,
)
from rpbert.evidence.regions import StoredSettings, StoredVector
from rpbert.storage.published import checked, from_hub, shape_of
from rpbert.types import EvidenceInput, VisualTokens


class ImageSettings(NetworkSettings):
    """The image network: published by name or folder, or a shape with random weights. ResNet,
    ConvNeXt, ViT, DINOv2, CLIP and SigLIP are known. Images are prepared as the network was
    trained, unless a setting says otherwise. `pretrained` is such as ``microsoft/resnet-152`` or
    ``facebook/dinov2-base``; `shape` a published one (``resnet-18`` … ``resnet-152``) or fields of
    a configuration, without ``model_type`` those of ``ResNetConfig``."""

    image_size: int | None = Field(None, ge=32)
    """Images are resized to this many pixels square; a ResNet's own are 224."""
    mean: tuple[float, float, float] | None = None
    """Of red, green and blue in [0, 1]."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, validation_alias=AliasChoices("std", "deviation")
    )
    """What values are divided by, once the mean is subtracted."""
    resampling: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = None
    """Pillow's filter that resizes an image."""

    def network(self, key: str) -> tuple[BlockNetwork, Preprocessing]:
        """The network, and how images are prepared for it; `key` as of `build`."""
        given = {"size": self.image_size, **self.model_dump(include={"mean", "std", "resampling"})}
        own = {name: value for name, value in given.items() if value is not None}
        name, shape = self.pretrained, self.shape
        if name is not None:
            return from_hub(f"{key}.pretrained", name, lambda: published_network(name, own))
        if isinstance(shape, str):
            if shape not in RESNET_SHAPES:
                known = ", ".join(RESNET_SHAPES)
                raise InputError(f"{key}.shape", shape, f"one of {known}, or a mapping")
            shape = RESNET_SHAPES[shape]
        fields: dict[str, Any] = shape or {}
        return checked(f"{key}.shape", lambda: random_network(fields, own))


class BlockSettings(ImageSettings):
    """The blocks of an image, of which the network makes 7 × 7 in the paper."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, "pretrained", "shape")
        return self

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """The blocks of the network."""
        return ImageBlocks(*self.network(key))


class GlobalSettings(ImageSettings, StoredSettings):
    """One vector an image: the network's mean, or without one that of ``regions.safetensors``."""

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """The mean of blocks or of stored regions."""
        if self.initial_weights:
            return ImageVector(*self.network(key))
        return StoredVector(self.known_width(key))


class ImageBlocks(SeeingEvidence):
    """The blocks f_{i,j} of the last feature map of a network (Eq. 1); a box is a block's cell."""

    cells: Tensor

    def __init__(self, network: BlockNetwork, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.width, self.columns = network.width, network.side
        y, x = torch.meshgrid(*[torch.arange(network.side)] * 2, indexing="ij")
        corners = torch.stack([x, y, x + 1, y + 1], dim=-1).flatten(0, 1)  # (V, 4)
        self.register_buffer("cells", corners / network.side, persistent=False)

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Row by row. Shape: (I, V, d_v)."""
        blocks: Tensor = self.network(found.values)
        mask = found.mask.expand(-1, blocks.shape[1])
        return VisualTokens(blocks, mask, self.cells.expand(blocks.shape[0], -1, -1))

    def saved_settings(self) -> dict[str, Any]:
        """The shape of the network, and how its images are prepared."""
        prepared = asdict(self.preprocessing)
        size, shape = prepared.pop("size"), shape_of(self.network.config)
        return {"pretrained": None, "shape": shape, "image_size": size, **prepared}

    def freeze(self) -> None:
        """Batch normalisation keeps its statistics from here on."""
        if isinstance(self.network, ResNetBlocks):
            self.network.freeze()


class ImageVector(ImageBlocks):
    """One vector an image, the mean of its blocks (He et al. 2016: global average pooling)."""

    def __init__(self, network: BlockNetwork, preprocessing: Preprocessing) -> None:
        super().__init__(network, preprocessing)
        self.columns = None

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, 1, d_v)."""
        blocks: Tensor = self.network(found.values)
        return VisualTokens(blocks.mean(1, keepdim=True), found.mask, whole_image(found.mask))
