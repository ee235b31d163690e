"""How published weights name the parameters of our encoders: `published_names.yaml`, and here what
a table cannot say, the sizes that only the tensors of a checkpoint tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from torch import Tensor

from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.uniter import UniterEncoder
from rpbert.models.vilbert import VilbertEncoder
from rpbert.models.vision_language import VisionLanguageEncoder
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder
from rpbert.modules.geometry import COORDINATE_WIDTH

Tensors: TypeAlias = Mapping[str, Tensor]
Shape: TypeAlias = dict[str, Any]

HEAD = 64
"""Width of an attention head of BERT; how many heads there are, no tensor of a checkpoint says."""
VILBERT_HEAD = 128
"""Width of a head of ViLBERT's image stream and co-attention (bert_base_6layer_6conect.json)."""
NO_WEIGHTS = "unicoder_vl"  # the system of which no published weights could be found


@dataclass(frozen=True)
class Published:
    """How a published checkpoint names the parameters of one of our encoders."""

    encoder: type[VisionLanguageEncoder]
    regions: str  # renamed weight that reads features of regions
    beside: int = 0  # how much wider its input is than the features
    _: KW_ONLY
    tokenizer: str  # hub name of the one the weights were trained with
    bert: str  # what the names of the text's BERT begin with, after renaming
    names: dict[str, str]  # pattern of a published name and its replacement; the first match
    left_out: list[str]  # patterns of names that no encoder here has a part for
    beyond_bert: Callable[[Tensors], Shape] = lambda tensors: {}  # fields that BertConfig lacks
    unread: Callable[[Shape], list[str]] = lambda shape: []  # renamed, and read by nothing


def layers_of(tensors: Tensors, prefix: str) -> int:
    """How many layers there are whose names begin with something and a number."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})


def _lxmert_layers(tensors: Tensors) -> Shape:
    crossing = layers_of(tensors, "model.encoder.x_layers.")
    return {
        "num_hidden_layers": layers_of(tensors, "model.encoder.layer.") + crossing,
        "x_layers": crossing,
        "r_layers": layers_of(tensors, "model.encoder.r_layers."),
    }


def _vilbert_stream(tensors: Tensors) -> Shape:
    width, inner = len(tensors["regions.norm.weight"]), len(tensors["text_looks.0.query.weight"])
    return {
        "v_hidden_size": width,
        "v_num_attention_heads": max(1, width // VILBERT_HEAD),
        "v_intermediate_size": len(tensors["image_looks.0.intermediate.dense.weight"]),
        "bi_hidden_size": inner,
        "bi_num_attention_heads": max(1, inner // VILBERT_HEAD),
        "co_layers": layers_of(tensors, "text_looks."),
    }


RESNET = "resnet"
_NAMES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
RESNET_NAMES = _NAMES[RESNET]
PUBLISHED: dict[str, Published] = {
    "uniter": Published(UniterEncoder, "regions.feature.weight", **_NAMES["uniter"]),
    "vl_bert": Published(
        VlBertEncoder, "regions.projection.weight", 8 * COORDINATE_WIDTH, **_NAMES["vl_bert"]
    ),
    "vilbert": Published(
        VilbertEncoder,
        "regions.feature.weight",
        **_NAMES["vilbert"],
        beyond_bert=_vilbert_stream,
        unread=lambda shape: [rf"image_(looks|layers)\.{shape['co_layers'] - 1}\."],
    ),
    "visualbert": Published(
        VisualBertEncoder, "model.embeddings.visual_projection.weight", **_NAMES["visualbert"]
    ),
    "lxmert": Published(
        LxmertEncoder,
        "model.encoder.visn_fc.visn_fc.weight",
        **_NAMES["lxmert"],
        beyond_bert=_lxmert_layers,
        unread=lambda shape: [rf"model\.encoder\.x_layers\.{shape['x_layers'] - 1}\.visn_"],
    ),
}
