"""Published checkpoints to folders that training starts from: `rpbert convert`.
The authors of UNITER, VL-BERT and ViLBERT published pickles with their own names; VisualBERT and
LXMERT are pickles on the hub, the ResNets of RpBERT and UMT are torchvision's. A pickle can run
code when it is read. Here, and nowhere else in the package, one is read, by
``torch.load(weights_only=True)``, which builds nothing but tensors and refuses the rest; the result
is safetensors. Every name of the checkpoint is either taken, or known as a part that no system here
has (heads of pre-training, detectors) and reported, and every parameter of the encoder is filled.
Anything else is an error that lists the names."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rpbert.errors import InputError, reason_of
from rpbert.models.build import load_tokenizer
from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.uniter import UniterEncoder
from rpbert.models.vilbert import VilbertEncoder
from rpbert.models.vision_language import CONVERTED, WEIGHTS, VisionLanguageEncoder
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder
from rpbert.storage.manifest import entry_of, folder_written_whole
from rpbert.storage.published import from_hub

Tensors: TypeAlias = Mapping[str, Tensor]
Shape: TypeAlias = dict[str, Any]

RESNET = "resnet"
PADDING = 64  # sub-word tables may be filled up to a multiple of this
# Widths of a head, of which no tensor of a checkpoint tells how many there are: of BERT, and of
# ViLBERT's image stream and co-attention (bert_base_6layer_6conect.json).
HEAD, VILBERT_HEAD = 64, 128


@dataclass(frozen=True, kw_only=True)
class Published:
    """How a published checkpoint names the parameters of one of our encoders."""

    encoder: type[VisionLanguageEncoder]
    tokenizer: str  # hub name of the one the weights were trained with
    bert: str  # what the names of the text's BERT begin with, after renaming
    regions: str  # renamed weight that reads features of regions
    beside: int = 0  # how much wider its input is than the features
    names: dict[str, str]  # pattern of a published name and its replacement; the first match
    left_out: list[str]  # patterns of names that no encoder here has a part for
    beyond_bert: Callable[[Tensors], Shape] = lambda tensors: {}  # fields that BertConfig lacks
    unread: Callable[[Shape], str] = lambda shape: "(?!)"  # pattern of what nothing reads


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


_NAMES = yaml.safe_load(Path(__file__).with_name("published_names.yaml").read_text("utf-8"))
_RESNET = _NAMES[RESNET]
PUBLISHED: dict[str, Published] = {
    "uniter": Published(encoder=UniterEncoder, **_NAMES["uniter"]),
    "vl_bert": Published(encoder=VlBertEncoder, **_NAMES["vl_bert"]),
    "vilbert": Published(
        encoder=VilbertEncoder,
        **_NAMES["vilbert"],
        beyond_bert=_vilbert_stream,
        unread=lambda shape: rf"image_(looks|layers)\.{shape['co_layers'] - 1}\.",
    ),
    "visualbert": Published(encoder=VisualBertEncoder, **_NAMES["visualbert"]),
    "lxmert": Published(
        encoder=LxmertEncoder,
        **_NAMES["lxmert"],
        beyond_bert=_lxmert_layers,
        unread=lambda shape: rf"model\.encoder\.x_layers\.{shape['x_layers'] - 1}\.visn_",
    ),
}


def convert(
    system: str, checkpoint: Path, folder: Path, tokenizer: str | None = None
) -> dict[str, Any]:
    """Write a folder that ``model.encoder.pretrained`` takes, from the authors' file or a folder of
    transformers, with the tokenizer the weights were trained with or another (hub name or folder);
    of a ResNet, one that ``evidence.blocks.pretrained`` takes. Returns how many parameters are
    ``filled``, each with its published value, and the names of the checkpoint that are
    ``left_out``, as JSON types.
    Raises InputError: the checkpoint is not of that system, holds more than tensors, or does not
    fit the tokenizer; then nothing is written."""
    if system not in (*PUBLISHED, RESNET):
        raise InputError("SYSTEM", system, f"one of {', '.join([*PUBLISHED, RESNET])}")
    if system == RESNET and tokenizer is not None:
        raise InputError("--tokenizer", tokenizer, "nothing: a ResNet reads no words")
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not free and not (folder / CONVERTED).is_file():
        raise InputError(folder, "a folder with other things", "a new folder for --output")
    path = _file_of(checkpoint)
    published = read_checkpoint(path)
    described: dict[str, Any] = {"system": system, "checkpoint": path.name}
    described["sha256"] = entry_of(path)["sha256"]
    saved: Any
    if system == RESNET:
        ours, saved = translate_resnet(published, path)
    else:
        rules = PUBLISHED[system]
        ours = translate(rules, published, path)
        name, rows = tokenizer or rules.tokenizer, ours.shape["vocab_size"]
        saved = from_hub("--tokenizer", name, lambda: load_tokenizer(name))
        if not 0 <= rows - len(saved) < PADDING:
            found = f"{len(saved)} sub-words for {rows} embeddings"
            raise InputError(name, found, "the tokenizer the weights were trained with")
        described["encoder"] = rules.encoder.__name__
    described |= {"shape": ours.shape, "region_width": ours.region_width}
    with folder_written_whole(folder) as new:
        save_file(ours.tensors, new / WEIGHTS, {"format": "pt"})
        saved.save_pretrained(new)
        (new / CONVERTED).write_text(json.dumps(described, indent=1), encoding="utf-8")
    counts = {"filled": len(ours.tensors), "left_out": ours.left_out}
    return {"system": system, "folder": str(folder), **counts}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; an `InputError` where it holds more than tensors."""
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
    except Exception as error:  # a file that is no pickle can raise anything
        raise InputError(path, reason_of(error), expected) from None
    for inner in ("state_dict", "model_state_dict", "model"):  # beside an optimiser's
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    named = content.items() if isinstance(content, dict) else ()
    tensors = {str(key): value for key, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(path, "no named tensors", expected)
    return tensors


@dataclass(frozen=True)
class Translated:
    """A checkpoint in our names: all of an encoder, of a shape and for regions of a size."""

    tensors: dict[str, Tensor]
    shape: Shape
    region_width: int
    left_out: list[str]


def translate(rules: Published, published: Tensors, where: object) -> Translated:
    """Find every parameter of an encoder among published tensors.
    Raises InputError: lists unknown names, parameters without a value and sizes that differ."""
    bert = {re.escape(rules.bert) + r"(embeddings|encoder\.layer)\.": r"\g<0>"}
    renamed, left_out = _rename({**rules.names, **bert}, rules.left_out, published, where)
    shape, region_width = _shape_of(rules, renamed, where)
    unread = [name for name in renamed if re.match(rules.unread(shape), name)]
    with torch.device("meta"):
        encoder = rules.encoder.random(shape, region_width, rows=0)
    tensors = _filled(encoder, {n: t for n, t in renamed.items() if n not in unread}, where)
    return Translated(tensors, shape, region_width, sorted([*left_out, *unread]))


def translate_resnet(published: Tensors, where: object) -> tuple[Translated, Any]:
    """A ResNet of torchvision as that of transformers, which puts a block's stride where it does,
    in the 3 × 3 convolution. Raises as `translate` does."""
    from transformers import ResNetConfig, ResNetModel

    renamed, left_out = _rename(_RESNET["names"], _RESNET["left_out"], published, where)
    renamed = {re.sub(r"\{(\d)}", lambda n: str(int(n[1]) - 1), k): v for k, v in renamed.items()}
    stages = [f"encoder.stages.{n}.layers." for n in range(4)]
    last = 2 if f"{stages[0]}0.layer.2.convolution.weight" in renamed else 1
    try:
        shape = {
            "embedding_size": len(renamed["embedder.embedder.convolution.weight"]),
            "hidden_sizes": [len(renamed[f"{s}0.layer.{last}.convolution.weight"]) for s in stages],
            "depths": [layers_of(renamed, stage) for stage in stages],
            "layer_type": "bottleneck" if last == 2 else "basic",
        }
    except KeyError as missing:
        raise InputError(where, f"unfilled: {missing.args[0]}", "a value for it") from None
    config = ResNetConfig(**shape, architectures=["ResNetModel"])
    with torch.device("meta"):
        network = ResNetModel(config)
    # Older files do not count the batches, and nothing here reads how many they were.
    names = (name for name in network.state_dict() if name.endswith("num_batches_tracked"))
    tensors = _filled(network, {**dict.fromkeys(names, torch.tensor(0)), **renamed}, where)
    return Translated(tensors, shape, config.hidden_sizes[-1], sorted(left_out)), config


def _filled(network: nn.Module, renamed: Tensors, where: object) -> dict[str, Tensor]:
    """The tensors of a network, each once and of its shape."""
    # Copies: published files share memory between names, and some hold half precision.
    copies = {name: tensor.detach().clone() for name, tensor in renamed.items()}
    copies = {n: t.float() if t.is_floating_point() else t for n, t in copies.items()}
    try:
        network.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        found = str(error).partition(":")[2][:1000]
        expected = "a value for every parameter, and a place for every value"
        raise InputError(where, found, expected) from None
    return copies


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
    patterns: Mapping[str, str], dropped: list[str], published: Tensors, where: object
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by our names, and the names of those that no encoder here has a part for."""
    renamed: dict[str, Tensor] = {}
    left_out, unknown = [], []
    for name, tensor in published.items():
        plain = re.sub(r"^module\.", "", name)  # of training on several devices
        plain = plain.replace(".gamma", ".weight").replace(".beta", ".bias")  # of old BERTs
        if any(re.match(pattern, plain) for pattern in dropped):
            left_out.append(name)
            continue
        matches = ((re.match(pattern, plain), ours) for pattern, ours in patterns.items())
        place = next((m.expand(ours) + plain[m.end() :] for m, ours in matches if m), "")
        if not place or place in renamed:  # two names for one place are one too many
            unknown.append(name)
        else:
            renamed[place] = tensor
    if not renamed or unknown:
        found = f"unknown names: {', '.join(collapsed(unknown))}" if unknown else "no known name"
        raise InputError(where, found, "the names of this system")
    return renamed, left_out


def _shape_of(rules: Published, tensors: Tensors, where: object) -> tuple[Shape, int]:
    """The shape of the encoder and d_v, from the sizes of the tensors."""
    tables, layers = f"{rules.bert}embeddings.", f"{rules.bert}encoder.layer."
    try:
        vocabulary, hidden = tensors[f"{tables}word_embeddings.weight"].shape
        shape = {
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "num_hidden_layers": layers_of(tensors, layers),
            "num_attention_heads": max(1, hidden // HEAD),
            "intermediate_size": len(tensors[f"{layers}0.intermediate.dense.weight"]),
            "max_position_embeddings": len(tensors[f"{tables}position_embeddings.weight"]),
            "type_vocab_size": len(tensors[f"{tables}token_type_embeddings.weight"]),
        }
        width = tensors[rules.regions].shape[1] - rules.beside
        return {**shape, **rules.beyond_bert(tensors)}, width
    except KeyError as missing:
        raise InputError(where, f"unfilled: {missing.args[0]}", "a value for it") from None
