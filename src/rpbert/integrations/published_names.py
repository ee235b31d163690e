"""How the authors of published weights name their parameters, and where each has its place here.

These are facts about files that were published once, so they do not change; each table names the
code they were read from. The files themselves were not at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

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


@dataclass(frozen=True)
class Published:
    """How a published checkpoint names the parameters of one of our encoders.

    Attributes:
        tokenizer: hub name of the tokenizer the weights were trained with.
        names: pattern of a published name and what takes its place; the first that matches.
        left_out: patterns of published names that no encoder here has a part for.
        bert: what the names of the text's BERT begin with, after renaming.
        region_width: d_v, from the renamed tensors.
        beyond_bert: fields of the shape that BertConfig has not, from the renamed tensors.
        unread: of the renamed names, those that nothing reads in an encoder of a shape.
    """

    encoder: type[VisionLanguageEncoder]
    tokenizer: str
    names: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    bert: str
    region_width: Callable[[Tensors], int]
    beyond_bert: Callable[[Tensors], Shape] = lambda tensors: {}
    unread: Callable[[Shape], tuple[str, ...]] = lambda shape: ()


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


PUBLISHED: dict[str, Published] = {
    # ChenRocks/UNITER, model/model.py and model/pretrain.py (class UniterForPretraining)
    "uniter": Published(
        encoder=UniterEncoder,
        tokenizer="bert-base-cased",
        names=(
            (r"(uniter|bert)\.img_embeddings\.img_linear\.", "regions.feature."),
            (r"(uniter|bert)\.img_embeddings\.img_layer_norm\.", "regions.feature_norm."),
            (r"(uniter|bert)\.img_embeddings\.pos_linear\.", "regions.box."),
            (r"(uniter|bert)\.img_embeddings\.pos_layer_norm\.", "regions.box_norm."),
            (r"(uniter|bert)\.img_embeddings\.LayerNorm\.", "regions.norm."),
            (r"(uniter|bert)\.(embeddings|encoder)\.", r"bert.\2."),
        ),
        left_out=(
            r"(uniter|bert)\.(pooler|img_embeddings\.mask_embedding)\.",
            r"(cls|feat_regress|region_classifier|itm_output)\.",
        ),
        bert="bert.",
        region_width=lambda tensors: tensors["regions.feature.weight"].shape[1],
    ),
    # jackroos/VL-BERT, common/visual_linguistic_bert.py, common/fast_rcnn.py and
    # pretrain/modules/resnet_vlbert_for_pretraining_multitask.py
    "vl_bert": Published(
        encoder=VlBertEncoder,
        tokenizer="bert-base-uncased",
        names=(
            (r"vlbert\.(word|position|token_type)_embeddings\.", r"bert.embeddings.\1_embeddings."),
            (r"vlbert\.embedding_LayerNorm\.", "bert.embeddings.LayerNorm."),
            (r"vlbert\.encoder\.", "bert.encoder."),
            (r"vlbert\.visual_ln_text\.", "regions.text_norm."),
            (r"vlbert\.visual_ln_object\.", "regions.region_norm."),
            (r"vlbert\.end_embedding\.", "regions.end."),
            (r"object_linguistic_embeddings\.", "regions.word."),
            (r"image_feature_extractor\.obj_downsample\.1\.", "regions.projection."),
        ),
        left_out=(
            r"vlbert\.(mlm_head|mvrc_head|relationsip_head|pooler)\.",
            r"image_feature_extractor\.(backbone|roi_head_feature_extractor|head)\.",
            r"object_mask_(visual|word)_embedding\.",
            r"aux_text_visual_embedding\.",
        ),
        bert="bert.",
        region_width=lambda t: t["regions.projection.weight"].shape[1] - 8 * COORDINATE_WIDTH,
    ),
    # facebookresearch/vilbert-multi-task, vilbert/vilbert.py (BertForMultiModalPreTraining and
    # VILBertForVLTasks); 1 is the image there, 2 the text
    "vilbert": Published(
        encoder=VilbertEncoder,
        tokenizer="bert-base-uncased",
        names=(
            (r"bert\.v_embeddings\.image_embeddings\.", "regions.feature."),
            (r"bert\.v_embeddings\.image_location_embeddings\.", "regions.box."),
            (r"bert\.v_embeddings\.LayerNorm\.", "regions.norm."),
            (r"bert\.encoder\.v_layer\.", "image_layers."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biattention\.query2\.", r"text_looks.\1.query."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biattention\.(key|value)1\.", r"text_looks.\1.\2."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biattention\.query1\.", r"image_looks.\1.query."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biattention\.(key|value)2\.", r"image_looks.\1.\2."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biOutput\.dense2\.", r"text_looks.\1.dense."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biOutput\.LayerNorm2\.", r"text_looks.\1.norm."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biOutput\.dense1\.", r"image_looks.\1.dense."),
            (r"bert\.encoder\.c_layer\.(\d+)\.biOutput\.LayerNorm1\.", r"image_looks.\1.norm."),
            (r"bert\.encoder\.c_layer\.(\d+)\.t_(intermediate|output)\.", r"text_looks.\1.\2."),
            (r"bert\.encoder\.c_layer\.(\d+)\.v_(intermediate|output)\.", r"image_looks.\1.\2."),
        ),
        left_out=(
            r"bert\.(t_pooler|v_pooler|embeddings\.task_embeddings)\.",
            r"bert\.encoder\.c_layer\.\d+\.biOutput\.q_dense[12]\.",  # nor do the authors read it
            r"(cls|vil_prediction|vil_logit|vision_logit|linguisic_logit)\.",
        ),
        bert="bert.",
        region_width=lambda tensors: tensors["regions.feature.weight"].shape[1],
        beyond_bert=_vilbert_stream,
        unread=lambda shape: (rf"image_(looks|layers)\.{shape['co_layers'] - 1}\.",),
    ),
    # transformers, models/visual_bert/modeling_visual_bert.py (VisualBertForPreTraining)
    "visualbert": Published(
        encoder=VisualBertEncoder,
        tokenizer="bert-base-uncased",
        names=((r"(visual_bert\.)?(embeddings|encoder)\.", r"model.\2."),),
        left_out=(r"(visual_bert\.)?pooler\.", r"(cls|visual_bert\.embeddings\.position_ids)\b"),
        bert="model.",
        region_width=lambda t: t["model.embeddings.visual_projection.weight"].shape[1],
    ),
    # transformers, models/lxmert/modeling_lxmert.py (LxmertForPreTraining); airsplay/lxmert's own
    # files name the same modules and begin with bert.
    "lxmert": Published(
        encoder=LxmertEncoder,
        tokenizer="bert-base-uncased",
        names=((r"((lxmert|bert)\.)?(embeddings|encoder)\.", r"model.\3."),),
        left_out=(r"((lxmert|bert)\.)?pooler\.", r"(cls|obj_predict_head|answer_head)\."),
        bert="model.",
        region_width=lambda tensors: tensors["model.encoder.visn_fc.visn_fc.weight"].shape[1],
        beyond_bert=_lxmert_layers,
        unread=lambda shape: (rf"model\.encoder\.x_layers\.{shape['x_layers'] - 1}\.visn_",),
    ),
}
NO_WEIGHTS = "unicoder_vl"
"""The system of which no published weights could be found."""
