"""Text encoders by family: which class reads a published model, and how one is made or loaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rpbert.errors import InputError, did_you_mean
from rpbert.modules.encoder import BertEncoder, EncoderInput, TextImageEncoder, scaled
from rpbert.storage.manifest import verify
from rpbert.storage.published import (
    load_published,
    published_config,
    refuse_elsewhere,
    saved_folder,
)

if TYPE_CHECKING:
    from transformers import DebertaV2Model, ModernBertModel, PreTrainedConfig, PreTrainedModel


_SCALE: ContextVar[Tensor | None] = ContextVar("scale", default=None)
"""`EncoderInput.scale` on its way to the embeddings of an encoder that runs them itself."""


PRE_NORM = {"megatron-bert", "roberta-prelayernorm", "xlm-roberta-xl", "xmod"}
"""Families whose first layer normalises what it reads, and so would scale R back."""


def _scale_embedded(_module: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
    return scaled(embedded, _SCALE.get())


class AnyEncoder(TextImageEncoder):
    """An encoder computed by its own `forward`, from embeddings and positions."""

    READ = frozenset({"inputs_embeds", "attention_mask", "position_ids"})

    def __init__(self, bert: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(bert, *args, **kwargs)
        embeddings: Any = getattr(bert, "embeddings", None)
        one = embeddings is not None and type(embeddings) is not nn.Embedding
        self.can_scale = one and bert.config.model_type not in PRE_NORM
        if self.can_scale:
            embeddings.register_forward_hook(_scale_embedded)

    @property
    def has_segments(self) -> bool:
        """Segments are left to the encoder; `ImageType` tells the image from the text."""
        return False

    def check_acts(self, acts: str) -> None:
        """See `TextImageEncoder.check_acts`."""
        if acts != "before_norm" and not self.can_scale:
            found = f"{acts}, with {self.bert.config.model_type}"
            raise InputError("model.propagation.acts", found, "before_norm, or another encoder")

    def first(self, read: EncoderInput) -> Tensor:
        """The tokens as they are: the encoder adds the rest itself."""
        return read.hidden

    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """See `TextImageEncoder.layers`."""
        given = _SCALE.set(read.scale)
        try:
            output = self.bert(
                inputs_embeds=read.hidden,
                attention_mask=self.attention_mask(read),
                position_ids=read.positions + self._first_position,
            )
        finally:
            _SCALE.reset(given)
        hidden: Tensor = output.last_hidden_state[:, :rows]
        return hidden

    def attention_mask(self, read: EncoderInput) -> Any:
        """The mask as the encoder reads it."""
        return read.mask.long()


class ModernBertEncoder(AnyEncoder):
    """ModernBERT (Warner et al. 2025, "Smarter, Better, Faster, Longer", ACL).
    The window of a local layer counts positions: a text token sees all visual tokens or none."""

    bert: ModernBertModel

    def __init__(self, bert: ModernBertModel, *args: Any, **kwargs: Any) -> None:
        bert.set_attn_implementation("sdpa")  # other ones do not read masks as they are given
        super().__init__(bert, *args, **kwargs)

    def attention_mask(self, read: EncoderInput) -> dict[str, Tensor]:
        """A mask for each kind of layer. Shape: (S, 1, N, N)."""
        distance = (read.positions[:, :, None] - read.positions[:, None, :]).abs()
        near = distance <= self.bert.config.sliding_window
        real = read.mask[:, None, None, :].expand(-1, 1, near.shape[1], -1)
        # Padding attends to everything: a softmax over nothing is NaN.
        local = (real & near[:, None]) | ~read.mask[:, None, :, None]
        return {"full_attention": real, "sliding_attention": local}


class DebertaEncoder(TextImageEncoder):
    """DeBERTa-v2 and v3: disentangled attention over relative positions (He et al. 2021 and 2023).
    The distance of visual tokens from each other is 0."""

    bert: DebertaV2Model

    def first(self, read: EncoderInput) -> Tensor:
        """See `TextImageEncoder.first`."""
        embedded: Tensor = self.bert.embeddings(
            inputs_embeds=read.hidden,
            token_type_ids=read.segments if self.has_segments else torch.zeros_like(read.segments),
            position_ids=read.positions,
            mask=read.mask,
        )
        return scaled(embedded, read.scale)

    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """See `TextImageEncoder.layers`."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        encoder, distance = self.bert.encoder, None
        if encoder.relative_attention:
            distance = read.positions[:, :, None] - read.positions[:, None, :]  # (S, N, N)
            if encoder.position_buckets > 0:
                distance = make_log_bucket_position(
                    distance, encoder.position_buckets, encoder.max_relative_positions
                ).long()
            # transformers takes one table for all rows and heads, or one for each of them.
            distance = distance.repeat_interleave(self.bert.config.num_attention_heads, 0)[None]
        output = encoder(
            read.hidden, read.mask.long(), output_hidden_states=False, relative_pos=distance
        )
        hidden: Tensor = output.last_hidden_state[:, :rows]
        return hidden


FAMILIES: dict[str, type[TextImageEncoder]] = {
    "bert": BertEncoder,
    "roberta": BertEncoder,  # BERTweet as well
    "xlm-roberta": BertEncoder,
    "camembert": BertEncoder,
    "deberta-v2": DebertaEncoder,  # version 3 as well
    "modernbert": ModernBertEncoder,
}
"""By what transformers calls the architecture; any other is read by `AnyEncoder`."""

_DEBERTA = """embedding_size attention_head_size position_buckets norm_rel_ebd share_att_key
conv_kernel_size conv_groups conv_act"""
UNLISTED = {"deberta-v2": set(_DEBERTA.split())}
"""Fields that shape an encoder though its configuration does not list them."""

_EXPECTED = "an encoder of transformers with safetensors weights, by hub name or folder"


def family(config: PreTrainedConfig) -> type[TextImageEncoder]:
    """The class of an encoder, from its configuration."""
    return FAMILIES.get(config.model_type, AnyEncoder)


def published_encoder(name: str, subword_count: int = 0) -> PreTrainedModel:
    """An encoder by hub name or folder, in float32, without pooler; see `load_published`. RUN or
    RUN/model gives the text encoder that was trained there, for as many sub-words."""
    if folder := saved_folder(name):
        return _trained_encoder(folder, subword_count)
    kind = encoder_class(published_config(name), name)
    return load_published(kind, name, _EXPECTED, **without_pooler(kind))


def _trained_encoder(folder: Path, subword_count: int) -> PreTrainedModel:
    verify(folder, ("model.json", "model.safetensors"))
    saved = json.loads((folder / "model.json").read_text("utf-8"))["options"].get("encoder") or {}
    weights, prefix = load_file(folder / "model.safetensors"), "encoder.bert."
    own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    if not own or not isinstance(saved.get("shape"), dict):
        raise InputError(folder, "a model without a text encoder", "one of bert, umt or rpbert")
    encoder = random_encoder(saved["shape"], subword_count)
    encoder.load_state_dict(own)
    return encoder


def random_encoder(shape: Mapping[str, Any], subword_count: int) -> PreTrainedModel:
    """An encoder with random weights, without pooler, and a table of at least `subword_count` rows.
    `shape` are fields of its configuration; ``model_type`` is the family, BERT if it is absent.
    Raises InputError: a field is unknown, or too small for a post."""
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
    for field in sorted(fields.keys() - known):
        expected, hint = f"fields of {config_class.__name__}", did_you_mean(field, known)
        raise InputError(key, f"unknown field {field}", expected, hint)
    fields["vocab_size"] = max(fields.get("vocab_size", 0), subword_count)
    config = config_class(**fields)
    for field, least in (("num_hidden_layers", 1), ("max_position_embeddings", 16)):
        if getattr(config, field) < least:
            raise InputError(key, f"{field} = {getattr(config, field)}", f"at least {least}")
    kind = encoder_class(config, key)
    return kind(config, **without_pooler(kind))


def encoder_class(config: PreTrainedConfig, where: object) -> type[PreTrainedModel]:
    """The class of transformers for the encoder of a configuration. Raises InputError: it is no
    text encoder but a decoder, or reads nothing but ids of sub-words."""
    from transformers import models

    auto, ours = models.auto.modeling_auto, type(config)
    kind = auto.MODEL_MAPPING.get(ours, None)
    found = f"a model of type {config.model_type}"
    if kind is None or config.is_encoder_decoder or not hasattr(config, "vocab_size"):
        raise InputError(where, found, _EXPECTED)
    if ours in auto.MODEL_FOR_CAUSAL_LM_MAPPING and ours not in auto.MODEL_FOR_MASKED_LM_MAPPING:
        # Its words would see nothing of the image, which comes after them.
        raise InputError(where, f"{found}, a decoder", _EXPECTED)
    read = inspect.signature(kind.forward).parameters.keys()
    if family(config) is AnyEncoder and not read >= AnyEncoder.READ:
        raise InputError(where, f"{found}, which reads no embeddings", f"{', '.join(FAMILIES)}")
    encoder: type[PreTrainedModel] = kind
    return encoder


def without_pooler(kind: type[PreTrainedModel]) -> dict[str, Any]:
    """The arguments with which a network of transformers has no pooler."""
    taken = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if taken else {}
