"""Vision-and-language BERTs before the biLSTM-CRF (Table 5): what the six of them share.
The encoder reads a post's text together with its image; its vector of a word, the mean of the
word's sub-words, joins e_k at the input of the biLSTM: [e_k; e_k^VL]. One-stream models
(`OneStream`) read text and regions as one sequence; two-stream models (`vilbert`, `lxmert`) read
each alone and let them attend to each other.
Deviations of all six: regions may be blocks of a grid or other evidence; what nothing reads is left
out (poolers, what only pre-training used, regions after the text last attended to them); a post
without an image is read as text alone, and an attention that finds nothing gives zeros."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rpbert.config.model import EncoderSettings
from rpbert.errors import InputError
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence
from rpbert.models.build import Builder, check_vocabulary
from rpbert.models.tagger import BiLstmSettings, BiLstmSystem, TaggerOutput
from rpbert.modules.encoder import SubwordEncoder, bert_layer, pool_words
from rpbert.modules.families import random_encoder, without_pooler
from rpbert.storage.published import (
    bert_shape,
    checked,
    from_hub,
    load_published,
    published_config,
)
from rpbert.types import Batch, VisualTokens

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel, PreTrainedConfig

CONVERTED = "converted.json"
"""In a folder of `rpbert convert`: which system its weights are for, and their shape."""
WEIGHTS = "model.safetensors"


class VisionLanguageEncoder(SubwordEncoder, ABC):
    """Reads a post's text together with its image; `region_width` is the size d_v of its tokens."""

    network: ClassVar[str] = "bert"
    """The attribute that holds the transformer."""
    own_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of its shape beside those of transformers' BertConfig."""
    new: ClassVar[str] = "regions"
    """What no published BERT has, W^f and W^b: the module that embeds regions."""
    published_class: ClassVar[str | None] = None
    """The class of transformers for this architecture, if it has it."""

    def __init__(self, config: PreTrainedConfig, region_width: int) -> None:
        super().__init__()
        self.config = config
        self.width = self.input_width = config.hidden_size
        self.max_length: int = config.max_position_embeddings
        self.region_width = region_width

    @classmethod
    @abstractmethod
    def from_bert(cls, bert: BertModel, region_width: int, **own: int) -> Self:
        """The text's part is that of a BERT without pooler; `own` are values of `own_fields`."""

    @classmethod
    def random(cls, shape: Mapping[str, Any], region_width: int | None, rows: int) -> Self:
        """Random weights for a shape: fields of transformers' BertConfig, and `own_fields`.
        d_v is by default the size of an embedded sub-word; `rows` are the sub-word table's fewest.
        Raises InputError: an unknown field, or a value that makes no network."""
        own = {key: value for key, value in shape.items() if key in cls.own_fields}
        bert = random_encoder({k: v for k, v in shape.items() if k not in own}, rows)
        if bert.config.model_type != "bert":
            raise InputError("model.encoder.shape", f"a {bert.config.model_type}", "a BERT")
        return cls.from_bert(bert, region_width or bert.config.hidden_size, **own)

    @property
    def shape(self) -> dict[str, Any]:
        """The fields from which `random` builds an encoder of this shape."""
        own = {field: getattr(self.config, field) for field in self.own_fields}
        return {**bert_shape(self.config), **own}

    def embed(self, subwords: Tensor) -> Tensor:
        """Word-piece embeddings, without segment and position. Shape: (S, L) → (S, L, H)."""
        embedded: Tensor = getattr(self, self.network).get_input_embeddings()(subwords)
        return embedded

    def new_modules(self) -> list[nn.Module]:
        """See `SubwordEncoder.new_modules`."""
        return [self.get_submodule(self.new)]

    @abstractmethod
    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """Hidden states of the sub-words, without meaning at padding; V may be 0.
        Shape: (S, L), (S, L), (S, V, d_v) → (S, L, H)."""


class OneStream(VisionLanguageEncoder):
    """One BERT over text and regions as one sequence.
    Attention knows no order but that of the positions, so regions may follow the text's padding."""

    Regions: ClassVar[Callable[..., Any]]
    """What embeds regions, made of d_v and the text's configuration."""

    def __init__(self, bert: BertModel, region_width: int) -> None:
        super().__init__(bert.config, region_width)
        self.bert = bert
        self.regions = self.Regions(region_width, bert.config)

    @classmethod
    def from_bert(cls, bert: BertModel, region_width: int, **own: int) -> Self:
        """See `VisionLanguageEncoder.from_bert`."""
        return cls(bert, region_width)

    def inputs(
        self, subwords: Tensor, mask: Tensor, image: VisualTokens
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the first layer reads: the text (S, L, H), V' regions (S, V', H), their mask."""
        segment = self.bert.embeddings.token_type_embeddings.weight[1]  # B
        return self.bert.embeddings(subwords), self.regions(image, segment), image.mask

    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """See `VisionLanguageEncoder.forward`."""
        text, regions, real = self.inputs(subwords, mask, image)
        hidden, seen = torch.cat([text, regions], dim=1), torch.cat([mask, real], dim=1)
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden = bert_layer(layer, hidden, hidden, seen)
        # The last layer's states of the regions are not read.
        return bert_layer(last, hidden[:, : text.shape[1]], hidden, seen)


def with_sides(boxes: Tensor) -> Tensor:
    """A box ``(x0, y0, x1, y1, width, height, area)``, in shares of its image's sides (Chen et al.
    2020, UNITER, section 3.1). Shape: (…, 4) → (…, 7)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    width, height = x1 - x0, y1 - y0
    return torch.stack([x0, y0, x1, y1, width, height, width * height], dim=-1)


def with_area(boxes: Tensor) -> Tensor:
    """``(x0, y0, x1, y1, area)`` (Lu et al. 2019, ViLBERT, section 2.2). Shape: (…, 4) → (…, 5)."""
    return with_sides(boxes)[..., [0, 1, 2, 3, 6]]


class BoxRegions(nn.Module):
    """Embeds regions as LayerNorm(W^f f + W^b b + segment), b = (x0, y0, x1, y1, area); with
    `sides` as LayerNorm(LayerNorm(W^f f) + LayerNorm(W^b b) + segment), with width and height in b.
    """

    def __init__(self, region_width: int, config: BertConfig, *, sides: bool = False) -> None:
        super().__init__()
        width = config.hidden_size

        def norm() -> nn.Module:
            return nn.LayerNorm(width, eps=1e-12)

        self.place = with_sides if sides else with_area
        self.feature = nn.Linear(region_width, width)
        self.feature_norm = norm() if sides else nn.Identity()
        self.box = nn.Linear(7 if sides else 5, width)
        self.box_norm = norm() if sides else nn.Identity()
        self.norm = norm()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, image: VisualTokens, segment: Tensor | float = 0.0) -> Tensor:
        """Shapes: (S, V, d_v), (H,) → (S, V, H)."""
        feature = self.feature_norm(self.feature(image.values))
        box = self.box_norm(self.box(self.place(image.boxes)))
        embedded: Tensor = self.dropout(self.norm(feature + box + segment))
        return embedded


class VisionLanguageOptions(BiLstmSettings):
    """A vision-and-language encoder and what it sees of the image."""

    encoder: EncoderSettings
    """``pretrained`` is a folder of ``rpbert convert``, the system's own weights where
    transformers loads them, or a BERT: then what BERT lacks is random."""
    evidence: EvidenceSettings


class VisionLanguageTagger(BiLstmSystem):
    """A vision-and-language encoder and the biLSTM-CRF: ``[e_k; e_k^VL]`` (Table 5)."""

    Options = VisionLanguageOptions
    Encoder: ClassVar[type[VisionLanguageEncoder]]
    encoder: VisionLanguageEncoder
    evidence: Evidence

    def __init__(self, options: VisionLanguageOptions, builder: Builder) -> None:
        kind, settings, rows = type(self).Encoder, options.encoder, builder.subword_count
        # Sub-words of a text are embedded as the post's are.
        if options.evidence.kinds[options.evidence.kind].is_text:
            encoder = initial(kind, settings, rows, None)
            evidence = builder.evidence(options.evidence, encoder)
        else:
            evidence = builder.evidence(options.evidence)
            encoder = initial(kind, settings, rows, evidence.width)
        super().__init__(builder, builder.embeddings.width + encoder.width)
        self.encoder = encoder
        self.evidence = evidence

    @classmethod
    def of(cls, encoder: type[VisionLanguageEncoder]) -> type[Self]:
        """The system of an encoder."""
        return type(encoder.__name__.replace("Encoder", "Tagger"), (cls,), {"Encoder": encoder})

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        rows = self.evidence(batch).map(lambda part: part[batch.post_of_row])
        hidden = self.encoder(batch.subwords, batch.subword_mask, rows)
        return self.tag(batch, pool_words(hidden, batch.word_of_subword, *batch.forms.shape))


def initial(
    kind: type[VisionLanguageEncoder],
    settings: EncoderSettings,
    rows: int,
    region_width: int | None,
) -> VisionLanguageEncoder:
    """An encoder with its initial weights; arguments as of `VisionLanguageEncoder.random`.
    Raises InputError: weights or shape cannot be used."""
    name, shape = settings.pretrained, settings.shape or {}
    if name is None:
        key = "model.encoder.shape"
        return checked(key, lambda: kind.random(shape, region_width, rows))
    key = "model.encoder.pretrained"
    encoder = from_hub(key, name, lambda: _published(kind, name, region_width))
    region_width = region_width or encoder.input_width
    if encoder.region_width != region_width:
        found = f"visual tokens of size {region_width} for weights that read {encoder.region_width}"
        raise InputError(name, found, "evidence of the size the weights were trained with")
    check_vocabulary(name, encoder.config, rows)
    return encoder


def _published(
    kind: type[VisionLanguageEncoder], name: str, region_width: int | None
) -> VisionLanguageEncoder:
    """Weights of `rpbert convert`, of transformers for this architecture, or of a BERT."""
    import transformers

    folder, expected = Path(name), "a BERT in safetensors, or a folder of `rpbert convert`"
    own: Any = getattr(transformers, kind.published_class or "", None)
    if (folder / CONVERTED).is_file():
        described = json.loads((folder / CONVERTED).read_text("utf-8"))
        if described["encoder"] != kind.__name__:
            raise InputError(folder, f"weights of {described['system']}", "those of this system")
        encoder = kind.random(described["shape"], described["region_width"], rows=0)
        encoder.load_state_dict(load_file(folder / WEIGHTS))
    elif own and published_config(name).model_type == own.config_class.model_type:
        holding: Any = kind  # a whole network
        encoder = holding(load_published(own, name, expected, **without_pooler(own)))
    else:
        bert = load_published(transformers.BertModel, name, expected, add_pooling_layer=False)
        given = set(bert.parameters())  # before any is replaced; held, so that no identity returns
        encoder = kind.from_bert(bert, region_width or bert.config.hidden_size)
        encoder.loaded = frozenset(n for n, p in encoder.named_parameters() if p in given)
        encoder.initial_weights = f"text from {name}, the rest random"
        return encoder
    encoder.loaded = frozenset(name for name, _ in encoder.named_parameters())
    encoder.initial_weights = name
    return encoder
