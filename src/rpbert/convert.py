"""Published checkpoints to folders that training starts from: `rpbert convert`.

The authors of UNITER, VL-BERT and ViLBERT published pickles with names of their own; VisualBERT
and LXMERT lie on the hub as pickles too. A pickle can run code when it is read. Here, and nowhere
else in the package, one is read, by ``torch.load(weights_only=True)``, which builds nothing but
tensors and refuses the rest; what comes out is safetensors.

Nothing is left to chance: every name of the checkpoint is either taken, or known as a part that
no system here has (heads of pre-training, detectors) and reported, and every parameter of the
encoder is filled. Anything else is an error that lists the names.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rpbert.errors import InputError
from rpbert.models.build import from_hub
from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.saved import load_tokenizer
from rpbert.models.uniter import UniterEncoder
from rpbert.models.vilbert import VilbertEncoder
from rpbert.models.vision_language import CONVERTED, WEIGHTS, VisionLanguageEncoder
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder
from rpbert.modules.geometry import COORDINATE_WIDTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tensors: TypeAlias = Mapping[str, Tensor]
Shape: TypeAlias = dict[str, Any]

HEAD = 64
"""Width of an attention head of BERT; how many heads there are, no tensor of a checkpoint says."""
VILBERT_HEAD = 128
"""Width of a head of ViLBERT's image stream and co-attention (bert_base_6layer_6conect.json)."""
PADDING = 64
"""Sub-word tables may be filled up to a multiple of this."""


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


def _lxmert_layers(tensors: Tensors) -> Shape:
    crossing = _layers(tensors, "model.encoder.x_layers.")
    return {
        "num_hidden_layers": _layers(tensors, "model.encoder.layer.") + crossing,
        "x_layers": crossing,
        "r_layers": _layers(tensors, "model.encoder.r_layers."),
    }


def _vilbert_stream(tensors: Tensors) -> Shape:
    width, inner = len(tensors["regions.norm.weight"]), len(tensors["text_looks.0.query.weight"])
    return {
        "v_hidden_size": width,
        "v_num_attention_heads": max(1, width // VILBERT_HEAD),
        "v_intermediate_size": len(tensors["image_looks.0.intermediate.dense.weight"]),
        "bi_hidden_size": inner,
        "bi_num_attention_heads": max(1, inner // VILBERT_HEAD),
        "co_layers": _layers(tensors, "text_looks."),
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
NEVER_PUBLISHED = "unicoder_vl"


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        filled: parameters of the encoder, each with its published value.
        left_out: names of the checkpoint that no system here has a part for.
    """

    system: str
    folder: Path
    filled: int
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The conversion as JSON types."""
        return {
            "system": self.system,
            "folder": str(self.folder),
            "filled": self.filled,
            "left_out": list(self.left_out),
        }


def convert(
    system: str, checkpoint: Path, folder: Path, tokenizer: str | None = None
) -> Conversion:
    """Write a folder that ``model.encoder.pretrained`` takes.

    Args:
        system: a name of `PUBLISHED`.
        checkpoint: the authors' file, or a folder of transformers.
        tokenizer: hub name or folder; None: the one the weights were trained with.

    Raises:
        InputError: the checkpoint is not of that system, holds more than tensors, or fits the
            tokenizer not; then nothing is written.
    """
    if system == NEVER_PUBLISHED:
        mend = "start from a BERT, as its authors did: model.encoder.pretrained=bert-base-uncased"
        raise InputError(system, "no weights, its authors never published any", "another", mend)
    if system not in PUBLISHED:
        raise InputError("SYSTEM", system, f"one of {', '.join(PUBLISHED)}")
    if folder.exists() and any(folder.iterdir()) and not (folder / CONVERTED).is_file():
        raise InputError(folder, "a folder with other things", "a new folder for --output")
    rules = PUBLISHED[system]
    path = _file_of(checkpoint)
    ours = translate(rules, read_checkpoint(path), path)
    name, rows = tokenizer or rules.tokenizer, ours.shape["vocab_size"]
    pieces = from_hub("--tokenizer", name, lambda: load_tokenizer(name))
    if not 0 <= rows - len(pieces) < PADDING:
        found = f"{len(pieces)} sub-words for {rows} embeddings"
        raise InputError(name, found, "the tokenizer the weights were trained with")
    described = {
        "system": system,
        "encoder": rules.encoder.__name__,
        "shape": ours.shape,
        "region_width": ours.region_width,
        "checkpoint": path.name,
        "sha256": _sha256(path),
    }
    _write(folder, ours.tensors, pieces, described)
    return Conversion(system, folder, len(ours.tensors), ours.left_out)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; of a pickle nothing is executed.

    Raises:
        InputError: no such file, or one that holds no tensors or asks for more than tensors.
    """
    expected = "a checkpoint of named tensors"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(path, "no such file", expected) from None
    except pickle.UnpicklingError as error:
        reason = str(error).split(".")[0]
        found = f"a pickle that asks for more than tensors, nothing of it was run ({reason})"
        raise InputError(path, found, expected) from None
    except (RuntimeError, OSError, EOFError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(path, reason, expected) from None
    for inner in ("state_dict", "model_state_dict", "model"):  # beside an optimiser's
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    tensors = {}
    if isinstance(content, dict):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(path, "no named tensors", expected)
    return tensors


@dataclass(frozen=True)
class Translated:
    """A checkpoint in our names: all of an encoder, of a shape and for regions of a size."""

    tensors: dict[str, Tensor]
    shape: Shape
    region_width: int
    left_out: tuple[str, ...]


def translate(rules: Published, published: Tensors, where: object) -> Translated:
    """Find every parameter of an encoder among published tensors.

    Raises:
        InputError: a published name is unknown or has no place, a parameter has no value, or a
            size differs; all of them are listed.
    """
    renamed, left_out = _rename(rules, published, where)
    shape, region_width = _shape_of(rules, renamed, where)
    unread = [n for n in renamed if any(re.match(p, n) for p in rules.unread(shape))]
    with torch.device("meta"):
        places = rules.encoder.random(shape, region_width, rows=0).state_dict()
    faults = {
        "unused": [name for name in renamed if name not in places and name not in unread],
        "unfilled": [name for name in places if name not in renamed],
        "of another shape": [
            f"{name} {tuple(renamed[name].shape)} for {tuple(place.shape)}"
            for name, place in places.items()
            if name in renamed and renamed[name].shape != place.shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {', '.join(collapsed(n))}" for kind, n in faults.items() if n)
        raise InputError(where, found, "a value for every parameter, and a place for every value")
    # Copies: published files share memory between names, and some hold half precision.
    tensors = {name: renamed[name].detach().float().clone() for name in places}
    return Translated(tensors, shape, region_width, tuple(sorted([*left_out, *unread])))


def collapsed(names: Iterable[str]) -> list[str]:
    """Names, those of many layers as one: ``encoder.layer.*.output.dense.bias (12)``."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [name if n == 1 else f"{name} ({n})" for name, n in sorted(counts.items())]


def _file_of(checkpoint: Path) -> Path:
    """The weights in a folder of transformers, or the file itself."""
    if not checkpoint.is_dir():
        return checkpoint
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (checkpoint / name).is_file():
            return checkpoint / name
    raise InputError(checkpoint, "neither", "model.safetensors or pytorch_model.bin")


def _rename(
    rules: Published, published: Tensors, where: object
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by our names, and the names of those that no encoder here has a part for."""
    renamed: dict[str, Tensor] = {}
    left_out, unknown = [], []
    same = [(re.escape(rules.bert) + r"(embeddings|encoder\.layer)\.", r"\g<0>")]
    for name, tensor in published.items():
        plain = re.sub(r"^module\.", "", name)  # of training on several devices
        plain = plain.replace(".gamma", ".weight").replace(".beta", ".bias")  # of old BERTs
        if any(re.match(pattern, plain) for pattern in rules.left_out):
            left_out.append(name)
            continue
        for pattern, ours in (*rules.names, *same):
            if match := re.match(pattern, plain):
                place = match.expand(ours) + plain[match.end() :]
                break
        else:
            place = ""
        if not place or place in renamed:  # two names for one place are one too many
            unknown.append(name)
        else:
            renamed[place] = tensor
    if not renamed or unknown:
        found = f"unknown names: {', '.join(collapsed(unknown))}" if unknown else "no known name"
        raise InputError(where, found, f"those of {rules.encoder.__name__.removesuffix('Encoder')}")
    return renamed, left_out


def _shape_of(rules: Published, tensors: Tensors, where: object) -> tuple[Shape, int]:
    """The shape of the encoder and d_v, from the sizes of the tensors."""
    tables, layers = f"{rules.bert}embeddings.", f"{rules.bert}encoder.layer."
    try:
        vocabulary, width = tensors[f"{tables}word_embeddings.weight"].shape
        shape = {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "num_hidden_layers": _layers(tensors, layers),
            "num_attention_heads": max(1, width // HEAD),
            "intermediate_size": len(tensors[f"{layers}0.intermediate.dense.weight"]),
            "max_position_embeddings": len(tensors[f"{tables}position_embeddings.weight"]),
            "type_vocab_size": len(tensors[f"{tables}token_type_embeddings.weight"]),
        }
        return {**shape, **rules.beyond_bert(tensors)}, rules.region_width(tensors)
    except KeyError as missing:
        raise InputError(where, f"unfilled: {missing.args[0]}", "a value for it") from None


def _layers(tensors: Tensors, prefix: str) -> int:
    """How many layers there are whose names begin with something and a number."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in tensors if (match := pattern.match(name))})


def _write(
    folder: Path,
    tensors: dict[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    described: dict[str, Any],
) -> None:
    """Write the folder whole or not at all; what was there of an earlier conversion goes."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(tensors, new / WEIGHTS)
    tokenizer.save_pretrained(new)
    (new / CONVERTED).write_text(json.dumps(described, indent=1), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
