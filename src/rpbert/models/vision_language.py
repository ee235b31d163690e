"""Vision-and-language BERTs before the biLSTM-CRF (Table 5): what the six of them share.

The encoder reads a post's text together with its image; the vector it has for a word, the average
of its sub-words, stands beside e_k at the input of the biLSTM: [e_k; e_k^VL], as RpBERT's own
does. One-stream models (`OneStream`) read text and regions as one sequence; two-stream models
(`vilbert`, `lxmert`) read each alone and let them look at each other.

A post without an image is read as text alone: no region is there to be seen.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rpbert.config.model import BiLstmSettings, EncoderSettings, EvidenceSettings
from rpbert.errors import InputError
from rpbert.evidence.encoders import Evidence, VisualTokens
from rpbert.models.build import Parts, checked, from_hub, published_bert, random_bert
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.encoder import SubwordEncoder, bert_layer, pool_words
from rpbert.storage.published import bert_shape, model_type
from rpbert.types import Batch

if TYPE_CHECKING:
    from transformers import BertModel

CONVERTED = "converted.json"
"""In a folder of `rpbert convert`: which system its weights are for, and their shape."""
WEIGHTS = "model.safetensors"


class VisionLanguageEncoder(SubwordEncoder, ABC):
    """Reads a post's text together with its image.

    Attributes:
        region_width: size of a visual token, d_v.
    """

    published_type: ClassVar[str | None] = None
    """What transformers calls this architecture, if it has it."""

    region_width: int

    @classmethod
    @abstractmethod
    def from_bert(cls, bert: BertModel, region_width: int | None) -> Self:
        """The text's part is that of a BERT without pooler; what BERT has not is random.

        Args:
            region_width: size of a visual token, d_v; None: that of an embedded sub-word.
        """

    @classmethod
    def random(cls, shape: Mapping[str, Any], region_width: int | None, rows: int) -> Self:
        """Random weights.

        Args:
            shape: fields of transformers' BertConfig, and those this encoder has beside them.
            region_width: see `from_bert`.
            rows: fewest rows of the sub-word table.

        Raises:
            InputError: an unknown field, or a value that makes no network.
        """
        return cls.from_bert(random_bert(shape, rows), region_width)

    @classmethod
    def from_published(cls, name: str) -> Self:
        """The weights that transformers loads for this architecture.

        Raises:
            InputError: see `load_published`.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """The fields from which `random` builds an encoder of this shape."""

    @property
    @abstractmethod
    def pieces(self) -> nn.Embedding:
        """The sub-word table."""

    def embed(self, subwords: Tensor) -> Tensor:
        """Word-piece embeddings, without segment and position. Shape: (S, L) → (S, L, H)."""
        embedded: Tensor = self.pieces(subwords)
        return embedded

    @abstractmethod
    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """Read text and image.

        Args:
            subwords: ids with the special tokens. Shape: (S, L).
            mask: real sub-words. Shape: (S, L).
            image: of each row; in a row without an image none is real. V may be 0.
                Shape: (S, V, d_v).

        Returns:
            Hidden states of the sub-words; what stands at padding is meaningless.
            Shape: (S, L, H).
        """


class OneStream(VisionLanguageEncoder):
    """One BERT over text and regions as one sequence.

    Attention knows no order but that of the positions, so the regions may stand after the
    padding of the text.
    """

    def __init__(self, bert: BertModel, region_width: int) -> None:
        super().__init__()
        self.bert = bert
        self.width = self.input_width = bert.config.hidden_size
        self.longest: int = bert.config.max_position_embeddings
        self.region_width = region_width

    @classmethod
    def from_bert(cls, bert: BertModel, region_width: int | None) -> Self:
        """See `VisionLanguageEncoder.from_bert`."""
        return cls(bert, region_width or bert.config.hidden_size)

    @property
    def shape(self) -> dict[str, Any]:
        """Fields of transformers' BertConfig."""
        return bert_shape(self.bert.config)

    @property
    def pieces(self) -> nn.Embedding:
        """The sub-word table."""
        table: nn.Embedding = self.bert.embeddings.word_embeddings
        return table

    def new_modules(self) -> list[nn.Module]:
        """What maps regions into the encoder."""
        return [self.get_submodule("regions")]

    @abstractmethod
    def inputs(
        self, subwords: Tensor, mask: Tensor, image: VisualTokens
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the first layer reads: the text (S, L, H), the regions (S, V', H), which are real.

        Shapes of the arguments as for `forward`; of the last result (S, V').
        """

    def forward(self, subwords: Tensor, mask: Tensor, image: VisualTokens) -> Tensor:
        """See `VisionLanguageEncoder.forward`."""
        text, regions, real = self.inputs(subwords, mask, image)
        hidden = torch.cat([text, regions], dim=1)
        seen = torch.cat([mask, real], dim=1)
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden = bert_layer(layer, hidden, hidden, seen)
        # Nothing reads what the last layer would make of the regions.
        return bert_layer(last, hidden[:, : text.shape[1]], hidden, seen)


class VisionLanguageOptions(BiLstmSettings):
    """A vision-and-language encoder and what it sees of the image."""

    encoder: EncoderSettings
    """``pretrained`` is a folder of ``rpbert convert``, the system's own weights where
    transformers loads them, or a BERT: then what BERT has not is random."""
    evidence: EvidenceSettings


class VisionLanguageTagger(BiLstmSystem):
    """A vision-and-language encoder and the biLSTM-CRF: ``[e_k; e_k^VL]`` (Table 5).

    Args:
        encoder: text and image to a vector for each sub-word.
        evidence: image to visual tokens.
    """

    Options = VisionLanguageOptions
    Encoder: ClassVar[type[VisionLanguageEncoder]]

    encoder: VisionLanguageEncoder
    evidence: Evidence

    def __init__(
        self,
        encoder: VisionLanguageEncoder,
        evidence: Evidence,
        embeddings: WordEmbeddings,
        tagger: BiLstmCrf,
    ) -> None:
        super().__init__(embeddings, tagger)
        self.encoder = encoder
        self.evidence = evidence

    @classmethod
    def build(cls, options: VisionLanguageOptions, parts: Parts) -> Self:
        """Assemble the system from its settings."""
        start = partial(initial, cls.Encoder, options.encoder, parts.subword_count)
        # Pieces of a caption, or of what is written, are embedded as the text's are.
        if options.evidence.kind in ("captions", "ocr"):
            encoder = start(None)
            evidence = parts.evidence(options.evidence, encoder)
        else:
            evidence = parts.evidence(options.evidence)
            encoder = start(evidence.width)
        embeddings = parts.embeddings()
        return cls(encoder, evidence, embeddings, parts.tagger(embeddings.width + encoder.width))

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch by its words and images."""
        image = self.evidence(batch)
        rows = VisualTokens(*(part[batch.post_of_row] for part in image))
        hidden = self.encoder(batch.subwords, batch.subword_mask, rows)
        return self.tag(batch, pool_words(hidden, batch.word_of_subword, *batch.forms.shape))


def initial(
    kind: type[VisionLanguageEncoder],
    settings: EncoderSettings,
    rows: int,
    region_width: int | None,
) -> VisionLanguageEncoder:
    """An encoder with the weights it starts from; what these are stands in `initial_weights`.

    Args:
        rows: sub-words of the tokenizer.
        region_width: size of a visual token, d_v; None: that of an embedded sub-word.

    Raises:
        InputError: weights or shape cannot be used.
    """
    name, shape = settings.pretrained, settings.shape or {}
    if name is None:
        key = "model.encoder.shape"
        return checked(key, lambda: kind.random(shape, region_width, rows))
    key = "model.encoder.pretrained"
    encoder = from_hub(key, name, lambda: _published(kind, name, region_width))
    region_width = region_width or encoder.pieces.embedding_dim
    if encoder.region_width != region_width:
        found = f"visual tokens of size {region_width} for weights that read {encoder.region_width}"
        raise InputError(name, found, "evidence of the size the weights were trained with")
    if encoder.pieces.num_embeddings < rows:
        found = f"{rows} sub-words for {encoder.pieces.num_embeddings} embeddings"
        raise InputError(name, found, "a tokenizer and weights of one model")
    return encoder


def _published(
    kind: type[VisionLanguageEncoder], name: str, region_width: int | None
) -> VisionLanguageEncoder:
    if (Path(name) / CONVERTED).is_file():
        encoder = _converted(kind, Path(name))
        encoder.initial_weights = name
        return encoder
    found = model_type(name)
    if found == kind.published_type:
        encoder = kind.from_published(name)
        encoder.initial_weights = name
        return encoder
    if found != "bert":
        own = f", a {kind.published_type}" if kind.published_type else ""
        expected = f"a BERT{own} or a folder of `rpbert convert`"
        raise InputError(name, f"a model of type {found}", expected)
    encoder = kind.from_bert(published_bert(name), region_width)
    encoder.initial_weights = f"text from {name}, the rest random"
    return encoder


def _converted(kind: type[VisionLanguageEncoder], folder: Path) -> VisionLanguageEncoder:
    """The weights of a folder that `rpbert convert` wrote."""
    described = json.loads((folder / CONVERTED).read_text("utf-8"))
    if described["encoder"] != kind.__name__:
        raise InputError(folder, f"weights of {described['system']}", "those of this system")
    encoder = kind.random(described["shape"], described["region_width"], rows=0)
    encoder.load_state_dict(load_file(folder / WEIGHTS))
    return encoder
