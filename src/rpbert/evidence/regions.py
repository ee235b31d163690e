"""Regions of an image: stored ones of ``regions.safetensors``, or those that a detector finds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from pydantic import AliasChoices, Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rpbert.config.model import at_most_one
from rpbert.data.images import Preprocessing, load_regions
from rpbert.errors import InputError
from rpbert.evidence.base import (
    Evidence,
    NetworkSettings,
    Reader,
    Reading,
    SeeingEvidence,
    TextTable,
    whole_image,
)
from rpbert.evidence.networks import load_network, network_class
from rpbert.storage.published import checked, from_hub, refuse_elsewhere, shape_of
from rpbert.types import EvidenceInput, Post, PostImage, Regions, StoredRegions, VisualTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DETECTORS = {"detr": "DetrForObjectDetection", "yolos": "YolosForObjectDetection"}
"""The families known: queries, one softmax over labels and "no object", and boxes."""


class StoredSettings(NetworkSettings):
    """A kind that is made of ``regions.safetensors`` where no network is given."""

    width: int | None = Field(None, ge=1)
    """Size of the file's features; None: as the training data has it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        at_most_one(self, "pretrained", "shape", "width")
        return self

    @property
    def made_from(self) -> str:
        """Pixels with a network, else stored regions."""
        return "image" if self.initial_weights else "regions"

    def with_width(self, width: int) -> Self:
        """For stored features, unless a width is given."""
        given = self.initial_weights or self.width
        return self if given else self.model_copy(update={"width": width})

    def known_width(self, key: str) -> int:
        """The size of stored features; an InputError where nothing says it."""
        if self.width is None:
            expected = "regions.safetensors beside them"
            raise InputError(key, "no regions in the training posts", expected)
        return self.width


class RegionSettings(StoredSettings):
    """Regions of an image: those of ``regions.safetensors``, or those of a detector. `pretrained`
    is such as ``hustvl/yolos-tiny``; `shape` has the ``model_type`` ``detr`` or ``yolos``."""

    shape: dict[str, Any] | None = None
    image_size: int = Field(512, ge=32)
    """For a detector, images are resized to this many pixels square."""
    max_regions: int = Field(36, ge=1, validation_alias=AliasChoices("max_regions", "most"))
    """How many regions of a detector are kept, the most confident ones."""

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """A detector, or what hands stored regions on."""
        name, shape = self.pretrained, self.shape
        if name is not None:
            load = partial(load_network, DETECTORS, name, "detector")
            network = from_hub(f"{key}.pretrained", name, load)
        elif shape is not None:
            network = checked(f"{key}.shape", partial(_random, shape))
        else:
            return StoredRegionFeatures(self.known_width(key))
        return DetectedRegions(network, self.image_size, self.max_regions)


class StoredRegionFeatures(Evidence):
    """Regions that a detector found beforehand, as the batch holds them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        assert found.boxes is not None  # regions have boxes
        return VisualTokens(found.values, found.mask, found.boxes)

    def reader(self, reading: Reading) -> RegionReader:
        """Features and boxes."""
        return RegionReader(self.width)


class StoredVector(StoredRegionFeatures):
    """The mean of the regions as the one vector of an image (ViLBERT, Lu et al. 2019, does so)."""

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, 1, d_v)."""
        real = found.mask[:, :, None]  # no image has 0 regions here
        mean = (found.values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        mask = found.mask.any(1, keepdim=True)
        return VisualTokens(mean, mask, whole_image(mask))


class RegionReader(Reader):
    """Stored regions, with features of the width d_v that the model takes."""

    made_from = "regions"

    def __init__(self, width: int) -> None:
        self.width = width

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """The regions, of the right width; no evidence where a detector found none."""
        loaded: dict[Hashable, Any] = {}
        for key, (post, image) in wanted.items():
            given = image.regions
            assert given is not None  # they have a key
            regions = load_regions(given) if isinstance(given, StoredRegions) else given
            if (width := regions.features.shape[1]) != self.width:
                expected = f"{self.width}, as the model takes"
                raise InputError(post.origin or post.id, f"regions with {width} features", expected)
            loaded[key] = regions if len(regions.boxes) else "none"
        return loaded

    def pack(self, pieces: Sequence[Regions]) -> tuple[Tensor, Tensor, Tensor]:
        """Features and boxes, padded to the image with most."""
        if not pieces:
            none = torch.zeros(0, 0)
            return none[..., None].expand(0, 0, self.width), none.bool(), whole_image(none)
        values, boxes, mask = (
            pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)
            for arrays in zip(
                *((p.features, p.boxes, np.ones(len(p.boxes), bool)) for p in pieces), strict=True
            )
        )
        return values, mask, boxes


class DetectedRegions(SeeingEvidence):
    """The most confident regions of a detector (Carion et al. 2020, DETR), which is not trained.
    A region is an object query: its feature the last hidden state, its box as predicted; its rank
    is the probability of its best label that is an object."""

    def __init__(self, network: PreTrainedModel, image_size: int, max_regions: int) -> None:
        super().__init__()
        # Saved models know its parameters by these names.
        self.detector = nn.ModuleDict({"network": network.requires_grad_(False)})
        self.preprocessing = Preprocessing(image_size)
        self.max_regions = max_regions
        self.config = network.config
        self.width = int(self.config.hidden_size)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switches the mode of all but the network, which only ever evaluates."""
        super().train(mode)
        self.detector.eval()
        return self

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Features and boxes ``x0, y0, x1, y1`` in [0, 1]. Shape: (I, V, d_v)."""
        with torch.no_grad():
            output = self.detector["network"](found.values)
        queries = output.logits.shape[1]
        labels = output.logits.softmax(-1)[:, :, :-1]  # the last one is "no object"
        best = labels.amax(-1).topk(min(self.max_regions, queries)).indices[:, :, None]  # (I, V, 1)
        # YOLOS has its queries behind [CLS] and the patches of the image.
        hidden = output.last_hidden_state[:, -queries:]
        features = hidden.gather(1, best.expand(-1, -1, hidden.shape[2]))
        centre, size = output.pred_boxes.gather(1, best.expand(-1, -1, 4)).split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        return VisualTokens(features, found.mask.expand(-1, best.shape[1]), corners.clamp(0, 1))

    def saved_settings(self) -> dict[str, Any]:
        """The shape of the detector."""
        return {"pretrained": None, "shape": shape_of(self.config)}


def _random(shape: Mapping[str, Any]) -> PreTrainedModel:
    refuse_elsewhere(shape, "shape of the detector")
    fields = dict(shape)
    network = network_class(DETECTORS, fields.pop("model_type", None), "detector")
    return network(network.config_class(**fields))
