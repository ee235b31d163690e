"""Text encoders by family: which class reads a published model, and how one is made or loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rpbert.errors import InputError, did_you_mean
from rpbert.modules.encoder import BertEncoder, EncoderInput, LayeredEncoder, TextImageEncoder
from rpbert.storage.published import load_published, published_config, refuse_elsewhere

if TYPE_CHECKING:
    from transformers import DebertaV2Model, ModernBertModel, PreTrainedConfig, PreTrainedModel
    from transformers.models.deberta_v2.modeling_deberta_v2 import (
        DebertaV2Layer,
        DisentangledSelfAttention,
    )


class AnyEncoder(TextImageEncoder):
    """Any encoder of transformers that its own `forward` computes from embeddings and positions.

    `ImageType` tells the image from the text, whatever segments there are.
    """

    @staticmethod
    def takes(kind: type[PreTrainedModel]) -> bool:
        """Whether a class of encoders reads embeddings, a mask and positions."""
        read = {"inputs_embeds", "attention_mask", "position_ids"}
        return read <= set(inspect.signature(kind.forward).parameters)

    @property
    def has_segments(self) -> bool:
        """Segments are left to the encoder."""
        return False

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first.

        Raises:
            InputError: they share their weights.
        """
        for module in self.bert.modules():
            if (
                isinstance(module, nn.ModuleList)
                and len(module) == self.bert.config.num_hidden_layers
            ):
                return module
        kind = self.bert.config.model_type
        raise InputError("model.encoder", f"{kind}, whose layers share their weights", "layers")

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """The tokens as they are: the encoder adds the rest itself."""
        return tokens

    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """See `TextImageEncoder.layers`."""
        output = self.bert(
            inputs_embeds=read.hidden,
            attention_mask=self.attention_mask(read),
            position_ids=read.positions + self._first_position,
        )
        hidden: Tensor = output.last_hidden_state[:, :rows]
        return hidden

    def attention_mask(self, read: EncoderInput) -> Any:
        """The mask as the encoder reads it."""
        return read.mask.long()


class ModernBertEncoder(AnyEncoder):
    """ModernBERT (Warner et al. 2025, "Smarter, Better, Faster, Longer", ACL).

    All visual tokens of a post are rotated by the angle of one position, the one after its text.
    The window of a local layer counts these positions: a text token sees all visual tokens or none.
    """

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


class DebertaEncoder(LayeredEncoder):
    """DeBERTa-v2 and v3: disentangled attention over relative positions.

    He, P.; Liu, X.; Gao, J.; and Chen, W. 2021. DeBERTa: Decoding-enhanced BERT with Disentangled
    Attention. In ICLR. He, P.; Gao, J.; and Chen, W. 2023. DeBERTaV3. In ICLR.

    All visual tokens of a post have one position, the one after its text: their distance from each
    other is 0, and from a text token that token's distance from the text's end. transformers'
    attention takes one table of distances for all rows, and so cannot be used.
    """

    bert: DebertaV2Model

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first."""
        layers: nn.ModuleList = self.bert.encoder.layer
        return layers

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """See `TextImageEncoder.first`."""
        types = segments if self.has_segments else torch.zeros_like(segments)
        embedded: Tensor = self.bert.embeddings(
            inputs_embeds=tokens, token_type_ids=types, position_ids=positions, mask=mask
        )
        return embedded

    def compute(self, layer: nn.Module, rows: int, read: EncoderInput) -> Tensor:
        """See `LayeredEncoder.compute`."""
        inner: DebertaV2Layer = layer
        convolved = self.bert.encoder.conv is not None and layer is self.blocks[0]
        queries = read.hidden if convolved else read.hidden[:, :rows]
        found = self._attend(inner.attention.self, queries, read)
        attended = inner.attention.output(found, queries)
        hidden: Tensor = inner.output(inner.intermediate(attended), attended)
        if convolved:  # the largest models have a convolution beside their first layer
            hidden = self.bert.encoder.conv(read.hidden, hidden, read.mask.long())[:, :rows]
        return hidden

    def _attend(
        self, attention: DisentangledSelfAttention, queries: Tensor, read: EncoderInput
    ) -> Tensor:
        """Content to content, content to position and position to content (Eq. 4 of the paper).

        Shape: (S, Q, H) → (S, Q, H).
        """
        heads = attention.num_attention_heads

        def by_head(rows: Tensor) -> Tensor:  # (…, rows, H) → (…, heads, rows, width)
            return rows.view(*rows.shape[:-1], heads, -1).transpose(-3, -2)

        query = by_head(attention.query_proj(queries))
        key = by_head(attention.key_proj(read.hidden))
        value = by_head(attention.value_proj(read.hidden))
        scores = query @ key.transpose(-1, -2)  # (S, heads, Q, N)
        kinds = attention.pos_att_type if attention.relative_attention else []
        if kinds:
            table = attention.pos_dropout(self.bert.encoder.get_rel_embedding())
            place = self._buckets(attention, read.positions, queries.shape[1])[:, None]
            place, shared = place.expand(-1, heads, -1, -1), attention.share_att_key
        if "c2p" in kinds:
            project = attention.key_proj if shared else attention.pos_key_proj
            toward = query @ by_head(project(table)).transpose(-1, -2)  # (S, heads, Q, 2 spans)
            scores = scores + toward.gather(-1, place)
        if "p2c" in kinds:
            project = attention.query_proj if shared else attention.pos_query_proj
            away = key @ by_head(project(table)).transpose(-1, -2)  # (S, heads, N, 2 spans)
            scores = scores + away.gather(-1, place.transpose(-1, -2)).transpose(-1, -2)
        terms = 1 + ("c2p" in kinds) + ("p2c" in kinds)
        scores = scores / (terms * query.shape[-1]) ** 0.5
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~read.mask[:, None, None, :], lowest).softmax(-1)
        found: Tensor = attention.dropout(weights) @ value
        return found.transpose(1, 2).flatten(2)

    @staticmethod
    def _buckets(attention: DisentangledSelfAttention, positions: Tensor, rows: int) -> Tensor:
        """δ(i, j): the row of the relative embeddings for each query and key. Shape: (S, Q, N)."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        distance = positions[:, :rows, None] - positions[:, None, :]
        if attention.position_buckets > 0:
            distance = make_log_bucket_position(
                distance, attention.position_buckets, attention.max_relative_positions
            ).long()
        span = int(attention.pos_ebd_size)
        return (distance + span).clamp(0, 2 * span - 1)


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
    for field in fields.keys() - known:
        expected, hint = f"fields of {config_class.__name__}", did_you_mean(field, known)
        raise InputError(key, f"unknown field {field}", expected, hint)
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
        # Its words would see nothing of the image, which comes after them.
        raise InputError(where, f"{found}, a decoder", _EXPECTED)
    if family(config) is AnyEncoder and not AnyEncoder.takes(kind):
        raise InputError(where, f"{found}, which reads no embeddings", f"{', '.join(FAMILIES)}")
    encoder: type[PreTrainedModel] = kind
    return encoder


def _without_pooler(kind: type[PreTrainedModel]) -> dict[str, Any]:
    taken = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if taken else {}
