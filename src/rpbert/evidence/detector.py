"""Object detectors of transformers: what they find in an image, as features and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from rpbert.errors import InputError
from rpbert.storage.published import load_published, refuse_elsewhere

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DETECTORS = {"detr": "DetrForObjectDetection", "yolos": "YolosForObjectDetection"}
"""The families known: queries, one softmax over labels and "no object", and boxes."""


class Detector(nn.Module):
    """A detector that finds regions and is not trained further, as in every paper that uses them.

    Carion, N.; Massa, F.; Synnaeve, G.; Usunier, N.; Kirillov, A.; and Zagoruyko, S. 2020.
    End-to-End Object Detection with Transformers. In ECCV, 213-229. A region is an object query:
    its feature the last hidden state, its box as predicted, and it is the surer, the higher the
    probability of its best label that is an object.

    Args:
        network: a model of `DETECTORS`.
        image_size: side of the images in pixels.
        most: how many regions are kept, the surest first; no more than the network has queries.
    """

    def __init__(self, network: PreTrainedModel, image_size: int, most: int) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.image_size = image_size
        self.most = most
        self.width: int = network.config.hidden_size  # d_v
        self.train(self.training)

    @classmethod
    def from_pretrained(cls, source: str | Path, image_size: int, most: int) -> Self:
        """A published detector, by hub name or folder.

        Raises:
            InputError: see `load_published`; or a family that is not known.
        """
        from transformers import AutoConfig

        family = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        expected = f"a detector ({', '.join(DETECTORS)}) with safetensors weights"
        return cls(load_published(_class_of(family), source, expected), image_size, most)

    @classmethod
    def from_config(cls, shape: Mapping[str, Any], image_size: int, most: int) -> Self:
        """A detector of random weights.

        Args:
            shape: fields of the configuration, with its ``model_type``.

        Raises:
            InputError: the family is not known, or a field names something to be fetched.
        """
        refuse_elsewhere(shape, "shape of the detector")
        fields = dict(shape)
        network = _class_of(fields.pop("model_type", None))
        return cls(network(network.config_class(**fields)), image_size, most)

    def train(self, mode: bool = True) -> Self:
        """Switches the mode, of which the network takes no notice: it only ever evaluates."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features and boxes ``x0, y0, x1, y1`` in [0, 1] of the surest regions.

        Shapes: (I, 3, image_size, image_size) → (I, V, d_v), (I, V, 4).
        """
        with torch.no_grad():
            found = self.network(pixels)
        queries = found.logits.shape[1]
        labels = found.logits.softmax(-1)[:, :, :-1]  # the last one is "no object"
        best = labels.amax(-1).topk(min(self.most, queries)).indices[:, :, None]  # (I, V, 1)
        # YOLOS has its queries behind [CLS] and the patches of the image.
        hidden = found.last_hidden_state[:, -queries:]
        features = hidden.gather(1, best.expand(-1, -1, hidden.shape[2]))
        centre, size = found.pred_boxes.gather(1, best.expand(-1, -1, 4)).split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        return features, corners.clamp(0, 1)


def _class_of(family: str | None) -> type[PreTrainedModel]:
    import transformers

    if family not in DETECTORS:
        found = f"model_type {family}" if family else "no model_type"
        raise InputError("detector", found, f"one of {', '.join(DETECTORS)}")
    network: type[PreTrainedModel] = getattr(transformers, DETECTORS[family])
    return network
