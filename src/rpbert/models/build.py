"""Makes the modules of a system from its settings, apart from what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from rpbert.config.model import ReaderSettings, Settings, TextEncoderSettings
from rpbert.data.vocabulary import Vocabulary, learn_wordpieces
from rpbert.errors import InputError
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import CombinedEvidence, Evidence, TextTable
from rpbert.models.tagger import BiLstmCrf, SystemSettings, WordEmbeddings
from rpbert.modules.embeddings import CharacterEncoder, WordVectors
from rpbert.modules.encoder import SubwordEncoder, TextImageEncoder
from rpbert.modules.families import family, published_encoder, random_encoder
from rpbert.storage.published import checked, from_hub
from rpbert.types import Post

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


class Builder:
    """Makes the modules of a system from their settings.

    Args:
        settings: of what reads the words and tags them.
        vocabulary: sizes of the tables, and K.
        subword_count: rows of the sub-word table of an encoder with random weights.
        matrix: initial word vectors, a row for each word of the vocabulary after the padding and
            the unknown one. Shape: (words, dimension).
    """

    def __init__(
        self,
        settings: Settings,
        vocabulary: Vocabulary,
        subword_count: int,
        matrix: np.ndarray | None = None,
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary
        self.subword_count = subword_count
        self.matrix = matrix
        self._embeddings: WordEmbeddings | None = None

    def embeddings(self) -> WordEmbeddings:
        """e_k: word vectors and the character biLSTM, the same at every call."""
        if self._embeddings is None:
            words, matrix, settings = len(self.vocabulary.words), self.matrix, self.reader
            dimension = settings.word_dimension if matrix is None else matrix.shape[1]
            characters = settings.character_dimension
            self._embeddings = WordEmbeddings(
                WordVectors(words, dimension, matrix),
                CharacterEncoder(len(self.vocabulary.characters), characters, characters),
            )
        return self._embeddings

    @property
    def reader(self) -> ReaderSettings:
        """The settings of embeddings and biLSTM, for a system that has them."""
        assert isinstance(self.settings, ReaderSettings)
        return self.settings

    @property
    def hidden_width(self) -> int:
        """Width of h_t, both directions of the biLSTM."""
        return 2 * self.reader.lstm_hidden

    def tagger(self, width: int, tagged: int | None = None) -> BiLstmCrf:
        """The biLSTM-CRF over inputs of a width; `tagged` as of `BiLstmCrf`."""
        return BiLstmCrf(width, self.reader, len(self.vocabulary.tags), tagged)

    def words(self, extra: int = 0) -> tuple[WordEmbeddings, BiLstmCrf]:
        """e_k, and the biLSTM-CRF over [e_k; a vector of width `extra`]."""
        embeddings = self.embeddings()
        return embeddings, self.tagger(embeddings.width + extra)

    def fusion(
        self,
        settings: EvidenceSettings,
        width: int,
        reads: int | None = None,
        tagged: int | None = None,
    ) -> tuple[Evidence, nn.Module, WordEmbeddings, BiLstmCrf]:
        """What a `FusionSystem` is made of.

        Args:
            width: that of projected visual tokens.
            reads: width of what the biLSTM reads; None: that of e_k.
            tagged: as of `BiLstmCrf`.
        """
        evidence, embeddings = self.evidence(settings), self.embeddings()
        projection = self.projection(evidence, width)
        return evidence, projection, embeddings, self.tagger(reads or embeddings.width, tagged)

    def encoder(
        self, settings: TextEncoderSettings, *, sees_images: bool = False
    ) -> TextImageEncoder:
        """A text encoder with published or random weights, which may read visual tokens too."""
        name, shape, rows = settings.pretrained, settings.shape or {}, self.subword_count
        if name is None:
            bert = checked("model.encoder.shape", lambda: random_encoder(shape, rows))
        else:
            bert = from_hub("model.encoder.pretrained", name, lambda: published_encoder(name))
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
        """Image to visual tokens.

        Args:
            encoder: embeds captions, and sets the width of several kinds; None: captions take the
                word vectors of `embeddings`, and there is one kind alone.
        """

        def table() -> TextTable:
            if encoder is not None:
                return TextTable(encoder.embed, encoder.input_width, of_pieces=True)
            vectors = self.embeddings().vectors
            return TextTable(vectors.forward, vectors.width, of_pieces=False)

        kinds = settings.build(table)
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


def tokenizer_for(options: SystemSettings, train: Sequence[Post]) -> PreTrainedTokenizerBase | None:
    """The encoder's own tokenizer, or one learnt from the training texts; None without encoder.

    Raises:
        InputError: it cannot be loaded.
    """
    settings = options.encoder
    if settings is None:
        return None
    if settings.pretrained is None:
        return learn_wordpieces((post.words for post in train), settings.vocabulary or 0)
    name = settings.pretrained
    return from_hub("model.encoder.pretrained", name, lambda: load_tokenizer(name))


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or folder.

    Raises:
        InputError: there is none.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # Where its files are missing, the library makes one that knows the special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(source, "no vocabulary", "a folder with tokenizer.json or vocab.txt")
    if hasattr(tokenizer, "normalization"):
        # BERTweet was trained on tweets whose users and links are one word each.
        tokenizer.normalization = True
    return tokenizer
