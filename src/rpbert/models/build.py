"""What systems are made of, and the `Builder` that makes it from their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rpbert.config.model import EncoderSettings, Settings, TaggerSettings, TextEncoderSettings
from rpbert.data.vocabulary import Vocabulary, learn_wordpieces
from rpbert.errors import InputError
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import CombinedEvidence, Evidence, TextTable
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.embeddings import CharacterEncoder, Lstm, WordVectors
from rpbert.modules.encoder import SubwordEncoder, TextImageEncoder
from rpbert.modules.families import family, published_encoder, random_encoder
from rpbert.storage.published import checked, from_hub, saved_folder
from rpbert.types import Batch, Post

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


class WordEmbeddings(nn.Module):
    """e_k: a word's vector beside its characters' (Lample et al. 2016, section 4)."""

    def __init__(self, vectors: WordVectors, characters: CharacterEncoder) -> None:
        super().__init__()
        self.vectors = vectors
        self.characters = characters
        self.width = vectors.width + characters.width

    def forward(self, batch: Batch) -> Tensor:
        """Each distinct word is embedded once, then laid out. Shape: (B, W, D)."""
        both = self.vectors(batch.form_vectors), self.characters(batch.form_characters)
        forms = torch.cat(both, dim=-1)  # (U, D)
        if not forms.shape[0]:  # every post of the batch is empty
            return forms.new_zeros(*batch.forms.shape, self.width)
        return forms[batch.forms]


class BiLstmCrf(nn.Module):
    """Bidirectional LSTM, a linear layer to the tags, and a CRF (Lample et al. 2016; Eq. 8, 9).
    Dropout is on the LSTM's input, between its layers and on its output; `tagged` is the width of
    what the linear layer reads, None for the hidden vectors alone."""

    def __init__(
        self, width: int, settings: TaggerSettings, tags: int, tagged: int | None = None
    ) -> None:
        super().__init__()
        self.lstm = build_lstm(width, settings, bidirectional=True)
        self.width = 2 * settings.lstm_hidden
        self.dropout = nn.Dropout(settings.dropout)
        self.to_tags = nn.Linear(tagged or self.width, tags)
        self.crf = LinearChainCRF(tags)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """h_t of every word. Shape: (B, W, D), (B, W) → (B, W, 2 * hidden)."""
        return self.lstm.read(self.dropout(words), mask)

    def score(self, hidden: Tensor) -> Tensor:
        """Emission scores from what represents each word. Shape: (B, W, F) → (B, W, K)."""
        emissions: Tensor = self.to_tags(self.dropout(hidden))
        return emissions


def build_lstm(width: int, settings: TaggerSettings, *, bidirectional: bool) -> Lstm:
    """An LSTM over inputs of a width."""
    return Lstm(
        width,
        settings.lstm_hidden,
        settings.lstm_layers,
        dropout=settings.dropout if settings.lstm_layers > 1 else 0.0,
        bidirectional=bidirectional,
        batch_first=True,
    )


def last_state(lstm: Lstm, words: Tensor, mask: Tensor) -> Tensor:
    """The last state of an LSTM of one direction; zeros without words. Shape: (B, hidden)."""
    read = lstm.read(words, mask)
    last = (mask.sum(1) - 1).clamp(min=0)[:, None, None].expand(-1, 1, read.shape[2])
    return read.gather(1, last).squeeze(1) * mask.any(1, keepdim=True)


@dataclass
class Builder:
    """Makes the modules of a system from their settings."""

    settings: Settings  # of the word reader and the tagger
    vocabulary: Vocabulary  # sizes of the tables, and K
    subword_count: int  # rows of the sub-word table of an encoder with random weights
    matrix: np.ndarray | None = None  # initial vectors of the vocabulary's words (words, dimension)

    @property
    def reader(self) -> TaggerSettings:
        """The settings of embeddings and biLSTM, for a system that has them."""
        assert isinstance(self.settings, TaggerSettings)
        return self.settings

    @property
    def hidden_width(self) -> int:
        """Width of h_t, both directions of the biLSTM."""
        return 2 * self.reader.lstm_hidden

    @cached_property
    def embeddings(self) -> WordEmbeddings:
        """e_k: word vectors and the character biLSTM."""
        known, matrix, width = self.vocabulary, self.matrix, self.reader.character_dimension
        dimension = self.reader.word_dimension if matrix is None else matrix.shape[1]
        return WordEmbeddings(
            WordVectors(len(known.words), dimension, matrix),
            CharacterEncoder(len(known.characters), width, width),
        )

    def tagger(self, width: int | None = None, tagged: int | None = None) -> BiLstmCrf:
        """The biLSTM-CRF over inputs of a width, by default that of e_k."""
        width = width or self.embeddings.width
        return BiLstmCrf(width, self.reader, len(self.vocabulary.tags), tagged)

    def encoder(
        self, settings: TextEncoderSettings, *, sees_images: bool = False
    ) -> TextImageEncoder:
        """A text encoder with published or random weights, which may read visual tokens too."""
        name, shape, rows = settings.pretrained, settings.shape or {}, self.subword_count
        if name is None:
            bert = checked("model.encoder.shape", lambda: random_encoder(shape, rows))
        else:
            bert = from_hub("model.encoder.pretrained", name, lambda: published_encoder(name, rows))
            check_vocabulary(name, bert.config, rows)
        layers, frozen = bert.config.num_hidden_layers, settings.frozen_layers
        if frozen is not None and frozen > layers:
            expected = f"at most its {layers} layers"
            raise InputError("model.encoder.frozen_layers", str(frozen), expected)
        encoder = family(bert.config)(
            bert, settings.max_length, sees_images=sees_images, initial_weights=name or "random"
        )
        if frozen is not None:
            encoder.freeze_lowest(frozen)
        return encoder

    def evidence(
        self, settings: EvidenceSettings, encoder: SubwordEncoder | None = None
    ) -> Evidence:
        """Image to visual tokens. The encoder embeds captions, and sets the width of several kinds;
        without it captions take the word vectors of `embeddings`, and there is one kind alone."""

        def table() -> TextTable:
            if encoder is not None:
                return TextTable(encoder.embed, encoder.input_width, in_text_space=True)
            vectors = self.embeddings.vectors
            return TextTable(vectors.forward, vectors.width, in_text_space=False)

        kinds = settings.build(table)
        behind = {name: kind.behind_text for name, kind in settings.kinds.items()}
        if isinstance(encoder, TextImageEncoder) and any(behind.values()):
            longest = max(behind, key=behind.__getitem__)
            encoder.leave_room(behind[longest], f"model.evidence.{longest}.max_tokens")
        if encoder is None or len(kinds) == 1:
            return kinds[settings.kind]
        width = encoder.input_width
        projections = {name: self.projection(kind, width) for name, kind in kinds.items()}
        return CombinedEvidence(kinds, projections, width)

    def projection(self, evidence: Evidence, width: int) -> nn.Module:
        """W^v, without bias; none for what already is of the text encoder's kind and width."""
        if evidence.in_text_space and evidence.width == width:
            return nn.Identity()
        return nn.Linear(evidence.width, width, bias=False)


def check_vocabulary(name: str, config: PreTrainedConfig, rows: int) -> None:
    """Raise an InputError for weights of fewer embeddings than the tokenizer has sub-words."""
    if config.vocab_size < rows:
        found = f"{rows} sub-words for {config.vocab_size} embeddings"
        raise InputError(name, found, "a tokenizer and weights of one model")


def tokenizer_for(
    settings: EncoderSettings | None, train: Sequence[Post]
) -> PreTrainedTokenizerBase | None:
    """The encoder's own tokenizer, or one learnt from the training texts; None without encoder."""
    if settings is None:
        return None
    if settings.pretrained is None:
        return learn_wordpieces((post.words for post in train), settings.vocabulary or 0)
    name = settings.pretrained
    return from_hub("model.encoder.pretrained", name, lambda: load_tokenizer(name))


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name, RUN or another folder. Raises InputError: there is none."""
    from transformers import AutoTokenizer

    if folder := saved_folder(source):
        source = folder / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # Where its files are missing, the library makes one that knows the special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(source, "no vocabulary", "a folder with tokenizer.json or vocab.txt")
    if hasattr(tokenizer, "normalization"):
        # BERTweet was trained on tweets whose users and links are one word each.
        tokenizer.normalization = True
    return tokenizer
