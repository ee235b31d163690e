"""Text encoders by family: which class reads a published model, and how one is made or loaded."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rpbert.errors import InputError
from rpbert.modules.any_encoder import AnyEncoder
from rpbert.modules.deberta import DebertaEncoder
from rpbert.modules.encoder import BertEncoder, TextImageEncoder
from rpbert.modules.modernbert import ModernBertEncoder
from rpbert.storage.published import load_published, published_config, refuse_elsewhere

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES: dict[str, type[TextImageEncoder]] = {
    "bert": BertEncoder,
    "roberta": BertEncoder,  # BERTweet as well
    "xlm-roberta": BertEncoder,
    "camembert": BertEncoder,
    "deberta-v2": DebertaEncoder,  # version 3 as well
    "modernbert": ModernBertEncoder,
}
"""By what transformers calls the architecture; any other is read by `AnyEncoder`."""

UNLISTED = {
    "deberta-v2": {
        "embedding_size",
        "attention_head_size",
        "position_buckets",
        "norm_rel_ebd",
        "share_att_key",
        "conv_kernel_size",
        "conv_groups",
        "conv_act",
    }
}
"""Fields that shape an encoder though its configuration does not list them."""

_EXPECTED = "an encoder of transformers with safetensors weights, by hub name or folder"


def family(config: PreTrainedConfig) -> type[TextImageEncoder]:
    """The class that reads an encoder of a configuration."""
    return FAMILIES.get(config.model_type, AnyEncoder)


def published_encoder(name: str) -> PreTrainedModel:
    """An encoder by hub name or folder, in float32, without pooler.

    Raises:
        InputError: it is no encoder, or see `load_published`.
    """
    kind = encoder_class(published_config(name, _EXPECTED), name)
    return load_published(kind, name, _EXPECTED, **_without_pooler(kind))


def random_encoder(shape: Mapping[str, Any], subword_count: int) -> PreTrainedModel:
    """An encoder of a given shape with random weights, without pooler.

    Args:
        shape: fields of its configuration; ``model_type`` tells the family, BERT if it is absent.
        subword_count: fewest rows of the sub-word table.

    Raises:
        InputError: a field is unknown, or too small for a post.
    """
    from transformers import CONFIG_MAPPING

    key = "model.encoder.shape"
    refuse_elsewhere(shape, key)
    # A sub-word table of few rows may lack the one that a family reserves for padding.
    fields = {"model_type": "bert", "pad_token_id": 0, **shape}
    model_type = fields.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        raise InputError(key, f"model_type {model_type!a:.60}", f"one of {', '.join(FAMILIES)}")
    config_class: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    known = sorted({*config_class().to_dict(), *UNLISTED.get(model_type, ())})
    for field in fields:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {near[0]}?" if near else ""
            raise InputError(
                key, f"unknown field {field}", f"fields of {config_class.__name__}", hint
            )
    fields["vocab_size"] = max(fields.get("vocab_size", 0), subword_count)
    config = config_class(**fields)
    for field, least in (("num_hidden_layers", 1), ("max_position_embeddings", 16)):
        if getattr(config, field) < least:
            raise InputError(key, f"{field} = {getattr(config, field)}", f"at least {least}")
    kind = encoder_class(config, key)
    return kind(config, **_without_pooler(kind))


def encoder_class(config: PreTrainedConfig, where: object) -> type[PreTrainedModel]:
    """The class of transformers for the encoder of a configuration.

    Raises:
        InputError: it is no text encoder but a decoder, or reads nothing but ids of sub-words.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_MAPPING,
    )

    kind = MODEL_MAPPING.get(type(config), None)
    found = f"a model of type {config.model_type}"
    if kind is None or config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise InputError(where, found, _EXPECTED)
    ours = type(config)
    if ours in MODEL_FOR_CAUSAL_LM_MAPPING and ours not in MODEL_FOR_MASKED_LM_MAPPING:
        # Its words would see nothing of the image, which stands behind them.
        raise InputError(where, f"{found}, a decoder", _EXPECTED)
    if family(config) is AnyEncoder and not AnyEncoder.takes(kind):
        raise InputError(where, f"{found}, which reads no embeddings", f"{', '.join(FAMILIES)}")
    encoder: type[PreTrainedModel] = kind
    return encoder


def _without_pooler(kind: type[PreTrainedModel]) -> dict[str, Any]:
    taken = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if taken else {}
