"""Networks of transformers that see, and the blocks that they make of an image (Eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rpbert.data.images import Channels, Preprocessing
from rpbert.errors import InputError
from rpbert.storage.published import load_published, published_config, refuse_elsewhere

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ResNetModel

RESNET_SHAPES: dict[str, dict[str, Any]] = {
    name: {"layer_type": kind, "depths": depths, "hidden_sizes": widths, "embedding_size": 64}
    for name, kind, depths, widths in (
        ("resnet-18", "basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet-34", "basic", [3, 4, 6, 3], [64, 128, 256, 512]),
        ("resnet-50", "bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
        ("resnet-101", "bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
        ("resnet-152", "bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
    )
}
"""He et al. 2016, "Deep residual learning for image recognition", Table 1."""

IMAGENET = Preprocessing()


@dataclass(frozen=True)
class Family:
    """An architecture of transformers: the class of the part that sees, and what it needs."""

    network: str
    preprocessing: Preprocessing = IMAGENET  # where the weights come without one
    unused: tuple[str, ...] = ()
    """Modules and parameters that no block depends on; they are left out."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed_size: bool = False
    """Positions are learnt for one size of image, and interpolated for others on demand."""


HALF: Channels = (0.5, 0.5, 0.5)
CLIP = Preprocessing(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
FAMILIES: dict[str, Family] = {
    # He et al. 2016; Liu et al. 2022, "A ConvNet for the 2020s"; Woo et al. 2023.
    "resnet": Family("ResNetModel"),
    "convnext": Family("ConvNextModel", unused=("layernorm",)),
    "convnextv2": Family("ConvNextV2Model", unused=("layernorm",)),
    # Dosovitskiy et al. 2021, "An image is worth 16x16 words".
    "vit": Family(
        "ViTModel",
        Preprocessing(mean=HALF, std=HALF, resampling="bilinear"),
        arguments={"add_pooling_layer": False},
        fixed_size=True,
    ),
    # Oquab et al. 2023; Darcet et al. 2024, "Vision transformers need registers".
    "dinov2": Family("Dinov2Model", unused=("embeddings.mask_token",)),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", unused=("embeddings.mask_token",)),
    # Radford et al. 2021; Zhai et al. 2023. The part of each that sees.
    "clip_vision_model": Family(
        "CLIPVisionModel", CLIP, unused=("post_layernorm",), fixed_size=True
    ),
    "siglip_vision_model": Family(
        "SiglipVisionModel", Preprocessing(mean=HALF, std=HALF), unused=("head",), fixed_size=True
    ),
}
"""By ``model_type`` of the configuration."""
WHOLE = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Models of text and images, whose part that sees is taken."""


class ResNetBlocks(nn.Module):
    """The blocks f_{i,j} of the last feature map of a ResNet, row by row (Eq. 1 and below it).
    Block (i, j), row i and column j counted from 0, is token ``i * side + j``: 7 × 7 = 49 tokens of
    size `width` (d_v) for an image of 224 × 224. `frozen` batch normalisation keeps its mean and
    variance in training, as published weights need: batches of 8 posts are too small to estimate
    what ImageNet gave. Scale and shift still learn."""

    def __init__(self, resnet: ResNetModel, image_size: int = 224, frozen: bool = False) -> None:
        super().__init__()
        self.resnet = resnet
        self.config = config = resnet.config
        self.frozen = frozen
        self.width = config.hidden_sizes[-1]
        # Convolutions are fastest with channels last, but of fewer than 16 channels oneDNN then
        # takes the gradient of a strided 1 × 1 convolution beyond its memory
        # (uxlfoundation/oneDNN#6035).
        narrow = min(config.embedding_size, *config.hidden_sizes) < 16
        self.memory_format = torch.contiguous_format if narrow else torch.channels_last
        # The stem halves twice, each stage after the first once; every halving rounds up.
        halvings = len(config.depths) + 1 + config.downsample_in_first_stage
        self.side = -(-image_size // 2**halvings)
        self.tokens = self.side**2
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switches between training and evaluation; frozen statistics stay in evaluation."""
        super().train(mode)
        for module in self.modules():
            if self.frozen and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def freeze(self) -> None:
        """Batch normalisation keeps its statistics from here on."""
        self.frozen = True
        self.train(self.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v)."""
        pixels = pixels.contiguous(memory_format=self.memory_format)
        blocks: Tensor = self.resnet(pixels).last_hidden_state  # (I, d_v, rows, columns)
        return blocks.permute(0, 2, 3, 1).flatten(1, 2)


class VisionBlocks(nn.Module):
    """The feature map of a ConvNet, or the patch tokens of a transformer, row by row. Tokens that
    stand for no patch, such as [CLS] and registers, are left out; what is left over of a patch is
    not seen. Raises InputError: an image of that size has no block."""

    def __init__(self, network: PreTrainedModel, image_size: int) -> None:
        super().__init__()
        self.config = config = network.config
        family = FAMILIES[config.model_type]
        for name in family.unused:
            holder, _, last = name.rpartition(".")
            parent = network.get_submodule(holder)
            is_module = isinstance(getattr(parent, last), nn.Module)
            setattr(parent, last, nn.Identity() if is_module else None)
        self.network = network
        stages = getattr(config, "depths", [1])  # each after the first of a ConvNet halves
        self.side = image_size // config.patch_size // 2 ** (len(stages) - 1)
        if not self.side:
            raise InputError("image_size", str(image_size), "as many pixels as a block has")
        self.tokens = self.side**2
        self.width = (getattr(config, "hidden_sizes", None) or [config.hidden_size])[-1]
        other = family.fixed_size and config.image_size != image_size
        self.options = {"interpolate_pos_encoding": True} if other else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v)."""
        found: Tensor = self.network(pixels, **self.options).last_hidden_state
        if found.ndim == 4:  # (I, d_v, rows, columns)
            return found.flatten(2).transpose(1, 2)
        return found[:, -self.tokens :]


BlockNetwork: TypeAlias = ResNetBlocks | VisionBlocks


def network_class(known: Mapping[str, str], family: str | None, what: str) -> type[PreTrainedModel]:
    """The class that a table names for a ``model_type``; an InputError where it names none."""
    import transformers

    if family is None or family not in known:
        found = f"model_type {family}" if family else "no model_type"
        raise InputError(what, found, f"one of {', '.join(known)}")
    return cast("type[PreTrainedModel]", getattr(transformers, known[family]))


def load_network(known: Mapping[str, str], source: str | Path, what: str) -> PreTrainedModel:
    """A published network of a family of a table; raises as `load_published` does."""
    kind = network_class(known, published_config(source).model_type, what)
    return load_published(kind, source, f"{what} ({', '.join(known)}) with safetensors weights")


def published_network(
    source: str | Path, own: Mapping[str, Any]
) -> tuple[BlockNetwork, Preprocessing]:
    """A network of `FAMILIES` by hub name or folder, and how its images are prepared: as it was
    trained but for `own` attributes of `Preprocessing`; raises as `load_network` does."""
    name = published_config(source).model_type
    kind, family = _family(WHOLE.get(name, name))
    expected = "an image network with safetensors weights, by hub name or folder"
    network = load_published(kind, source, expected, **family.arguments)
    return _blocks(network, replace(published_preprocessing(source, _usual(network)), **own), True)


def random_network(
    shape: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[BlockNetwork, Preprocessing]:
    """A network of random weights; `shape` has its ``model_type`` unless it is a ResNet. Raises
    InputError: a family or a field is not known, or names something to be fetched."""
    fields, where = dict(shape), "shape of the image network"
    kind, family = _family(fields.pop("model_type", "resnet"))
    refuse_elsewhere(fields, where)
    if unknown := sorted(fields.keys() - kind.config_class().to_dict()):
        raise InputError(where, f"key {unknown[0]!r}", f"fields of {kind.config_class.__name__}")
    config = kind.config_class(**fields)
    # A longer list would silently be cut to the shorter one.
    depths, sizes = (len(getattr(config, name, ())) for name in ("depths", "hidden_sizes"))
    if depths != sizes:
        raise InputError(where, f"{depths} depths and {sizes} hidden_sizes", "one of each a stage")
    network = kind(config, **family.arguments)
    return _blocks(network, replace(_usual(network), **own), False)


def _family(name: str) -> tuple[type[PreTrainedModel], Family]:
    classes = {known: family.network for known, family in FAMILIES.items()}
    return network_class(classes, name, "image network"), FAMILIES[name]


def _blocks(
    network: PreTrainedModel, preprocessing: Preprocessing, frozen: bool
) -> tuple[BlockNetwork, Preprocessing]:
    if network.config.model_type == "resnet":
        return ResNetBlocks(network, preprocessing.size, frozen), preprocessing
    return VisionBlocks(network, preprocessing.size), preprocessing


def _usual(network: PreTrainedModel) -> Preprocessing:
    """Of its family, for images of the size the network was made for, if it was for one."""
    usual = FAMILIES[network.config.model_type].preprocessing
    size = getattr(network.config, "image_size", usual.size)
    return replace(usual, size=size if isinstance(size, int) else size[0])


def published_preprocessing(source: str | Path, usual: Preprocessing) -> Preprocessing:
    """What ``preprocessor_config.json`` says, and what is usual where it is silent; but the image
    is squeezed to the square as a whole, never cropped: what is at its edge is evidence too."""
    from PIL.Image import Resampling as Filter
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        given, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:  # there is no such file
        return usual
    size = (given.get("do_center_crop") and given.get("crop_size")) or given.get("size")
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    found: dict[str, Any] = {"size": int(size)} if size else {}
    if given.get("resample") is not None:
        found["resampling"] = Filter(given["resample"]).name.lower()
    for name in ("mean", "std"):
        if values := given.get(f"image_{name}"):
            red, green, blue = map(float, values)
            found[name] = red, green, blue
    return replace(usual, **found)
