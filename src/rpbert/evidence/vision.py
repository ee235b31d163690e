"""Image networks of transformers beside ResNet, and how each was trained to see images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rpbert.data.images import Channels, Preprocessing, Resampling
from rpbert.errors import InputError
from rpbert.evidence.resnet import BlockNetwork, ResNetBlocks
from rpbert.storage.published import load_published, model_type, refuse_elsewhere

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HALF: Channels = (0.5, 0.5, 0.5)
IMAGENET = Preprocessing()


@dataclass(frozen=True)
class Family:
    """An architecture of transformers.

    Attributes:
        network: the class of the part that sees.
        preprocessing: what holds where the weights come without a word of it.
        pooling: modules and parameters that no block depends on; they are left out.
        arguments: of the class, beside its configuration.
        fixed: its positions are learnt for one size of image, and interpolated for others on
            demand.
    """

    network: str
    preprocessing: Preprocessing = IMAGENET
    pooling: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False


CLIP = Preprocessing(
    mean=(0.48145466, 0.4578275, 0.40821073), deviation=(0.26862954, 0.26130258, 0.27577711)
)
FAMILIES: dict[str, Family] = {
    # He et al. 2016; Liu et al. 2022, "A ConvNet for the 2020s"; Woo et al. 2023.
    "resnet": Family("ResNetModel"),
    "convnext": Family("ConvNextModel", pooling=("layernorm",)),
    "convnextv2": Family("ConvNextV2Model", pooling=("layernorm",)),
    # Dosovitskiy et al. 2021, "An image is worth 16x16 words".
    "vit": Family(
        "ViTModel",
        Preprocessing(mean=HALF, deviation=HALF, resampling="bilinear"),
        arguments={"add_pooling_layer": False},
        fixed=True,
    ),
    # Oquab et al. 2023; Darcet et al. 2024, "Vision transformers need registers".
    "dinov2": Family("Dinov2Model", pooling=("embeddings.mask_token",)),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", pooling=("embeddings.mask_token",)),
    # Radford et al. 2021; Zhai et al. 2023. The part of each that sees.
    "clip_vision_model": Family("CLIPVisionModel", CLIP, pooling=("post_layernorm",), fixed=True),
    "siglip_vision_model": Family(
        "SiglipVisionModel",
        Preprocessing(mean=HALF, deviation=HALF),
        pooling=("head",),
        fixed=True,
    ),
}
"""By ``model_type`` of the configuration."""
WHOLE = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Models of text and images, whose part that sees is taken."""


class VisionBlocks(BlockNetwork):
    """The feature map of a ConvNet, or the patch tokens of a transformer, row by row.

    Tokens that stand for no patch, such as [CLS] and registers, are left out.

    Args:
        network: of a family of `FAMILIES`.
        image_size: side of the images in pixels; what is left over of a patch is not seen.

    Raises:
        InputError: an image of that size has no block.
    """

    def __init__(self, network: PreTrainedModel, image_size: int) -> None:
        super().__init__()
        config = network.config
        family = FAMILIES[config.model_type]
        for name in family.pooling:
            _leave_out(network, name)
        self.network = network
        self.image_size = image_size
        stages = getattr(config, "depths", [1])  # each after the first of a ConvNet halves
        self.side = image_size // config.patch_size // 2 ** (len(stages) - 1)
        if not self.side:
            raise InputError("image_size", str(image_size), "as many pixels as a block has")
        self.tokens = self.side**2
        sizes = getattr(config, "hidden_sizes", None) or [config.hidden_size]
        self.width = sizes[-1]
        other = family.fixed and config.image_size != image_size
        self.options = {"interpolate_pos_encoding": True} if other else {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: (I, 3, image_size, image_size) → (I, V, d_v)."""
        found: Tensor = self.network(pixels, **self.options).last_hidden_state
        if found.ndim == 4:  # (I, d_v, rows, columns)
            return found.flatten(2).transpose(1, 2)
        return found[:, -self.tokens :]


def published_network(
    source: str | Path, own: Mapping[str, Any]
) -> tuple[BlockNetwork, Preprocessing]:
    """A published network of `FAMILIES`, and how its images are prepared.

    Args:
        source: hub name or folder.
        own: attributes of `Preprocessing` in place of those it was trained with.

    Raises:
        InputError: see `load_published`; or a family that is not known.
    """
    import transformers

    found = model_type(source)
    family = _family(WHOLE.get(found, found))
    if found == "resnet":
        preprocessing = replace(published_preprocessing(source, family.preprocessing), **own)
        return ResNetBlocks.from_pretrained(source, preprocessing.size), preprocessing
    expected = "an image network with safetensors weights, by hub name or folder"
    network = load_published(
        getattr(transformers, family.network), source, expected, **family.arguments
    )
    usual = _of_size(family.preprocessing, network)
    preprocessing = replace(published_preprocessing(source, usual), **own)
    return VisionBlocks(network, preprocessing.size), preprocessing


def random_network(
    shape: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[BlockNetwork, Preprocessing]:
    """A network of random weights.

    Args:
        shape: fields of the configuration, with its ``model_type`` unless it is a ResNet.
        own: as of `published_network`.

    Raises:
        InputError: a family or a field is not known, or names something to be fetched.
    """
    import transformers

    fields = dict(shape)
    name = fields.pop("model_type", "resnet")
    family = _family(name)
    if name == "resnet":
        preprocessing = replace(family.preprocessing, **own)
        return ResNetBlocks.from_config(fields, preprocessing.size), preprocessing
    refuse_elsewhere(fields, "shape of the image network")
    network = getattr(transformers, family.network)
    known = network.config_class().to_dict()
    for key in fields:
        if key not in known:
            expected = f"fields of {network.config_class.__name__}"
            raise InputError("shape of the image network", f"key {key!r}", expected)
    built = network(network.config_class(**fields), **family.arguments)
    preprocessing = replace(_of_size(family.preprocessing, built), **own)
    return VisionBlocks(built, preprocessing.size), preprocessing


def _family(name: str) -> Family:
    if name not in FAMILIES:
        known = ", ".join([*FAMILIES, *WHOLE])
        raise InputError("image network", f"model_type {name}", f"one of {known}")
    return FAMILIES[name]


def _leave_out(network: nn.Module, name: str) -> None:
    holder, _, last = name.rpartition(".")
    parent = network.get_submodule(holder)
    is_module = isinstance(getattr(parent, last), nn.Module)
    setattr(parent, last, nn.Identity() if is_module else None)


def _of_size(preprocessing: Preprocessing, network: PreTrainedModel) -> Preprocessing:
    """For images of the size the network was made for, if it was for one."""
    size = getattr(network.config, "image_size", preprocessing.size)
    return replace(preprocessing, size=size if isinstance(size, int) else size[0])


def published_preprocessing(source: str | Path, usual: Preprocessing) -> Preprocessing:
    """What ``preprocessor_config.json`` says, and what is usual where it is silent.

    The image is squeezed to the square as a whole, never cropped: what stands at its edge is
    evidence too.
    """
    from PIL.Image import Resampling as Filter
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        given, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:  # there is no such file
        return usual
    cropped = given.get("crop_size") if given.get("do_center_crop") else None
    size = cropped or given.get("size") or usual.size
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge") or usual.size
    resampling: Resampling = usual.resampling
    if given.get("resample") is not None:
        resampling = Filter(given["resample"]).name.lower()  # type: ignore[assignment]
    return Preprocessing(
        size=int(size),
        mean=_channels(given.get("image_mean")) or usual.mean,
        deviation=_channels(given.get("image_std")) or usual.deviation,
        resampling=resampling,
    )


def _channels(values: Any) -> Channels | None:
    if values is None:
        return None
    red, green, blue = map(float, values)
    return red, green, blue
