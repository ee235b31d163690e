"""The biLSTM-CRF every system ends in, and what a system returns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rpbert.config import SystemSettings
from rpbert.data import Batch
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.embeddings import CharacterEncoder, WordVectors
from rpbert.modules.evidence import Evidence


@dataclass(slots=True)
class TaggerOutput:
    """What a system says of a batch.

    Attributes:
        emissions: score of every tag at every word. Shape: (B, W, K).
        relation_score: r (Eq. 2), 0 where a post has no usable image; None without a gate.
            Shape: (B,).
        losses: negative log-likelihood of each post's gold tags (Eq. 9); None without gold
            tags. Shape: (B,).
    """

    emissions: Tensor
    relation_score: Tensor | None
    losses: Tensor | None


class WordEmbeddings(nn.Module):
    """e_k: a word's vector beside its characters' (Lample et al. 2016, section 4)."""

    def __init__(self, vectors: WordVectors, characters: CharacterEncoder) -> None:
        super().__init__()
        self.vectors = vectors
        self.characters = characters
        self.width = vectors.width + characters.width

    def forward(self, batch: Batch) -> Tensor:
        """Each distinct word is embedded once, then laid out. Shape: (B, W, D)."""
        forms = torch.cat(
            [self.vectors(batch.form_vectors), self.characters(batch.form_characters)], dim=-1
        )
        if not len(forms):  # every post of the batch is empty
            return forms.new_zeros(*batch.forms.shape, self.width)
        return forms[batch.forms]


class BiLstmCrf(nn.Module):
    """Bidirectional LSTM, a linear layer to the tags, and a CRF (Lample et al. 2016; Eq. 8, 9).

    Args:
        width: width of a word's input.
        hidden: hidden size per direction.
        layers: stacked biLSTM layers.
        dropout: on the input, between layers and on the output.
        tags: K.
    """

    def __init__(self, width: int, hidden: int, layers: int, dropout: float, tags: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(
            width,
            hidden,
            num_layers=layers,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
            batch_first=True,
        )
        self.to_tags = nn.Linear(2 * hidden, tags)
        self.crf = LinearChainCRF(tags)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Emission scores of every word. Shape: (B, W, D), (B, W) → (B, W, K)."""
        # An LSTM step has no length zero; an empty post's one step is masked like any padding.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(words), lengths, batch_first=True, enforce_sorted=False
        )
        hidden, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        emissions: Tensor = self.to_tags(self.dropout(hidden))
        return emissions


class System(nn.Module):
    """What every system of the registry is: embeddings, a tagger, and parts of its own.

    A system maps ``Batch -> TaggerOutput`` in `forward` by handing `tag` one vector a word.
    """

    Options: ClassVar[type[SystemSettings]]
    """The settings this system reads."""

    def __init__(self, embeddings: WordEmbeddings, tagger: BiLstmCrf) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.tagger = tagger

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        raise NotImplementedError

    def relation_logits(self, batch: Batch) -> Tensor:
        """Task#1: logits of (image does not add, image adds). Shape: (B, 2).

        Raises:
            TypeError: the system has no relation classifier.
        """
        raise TypeError(f"{type(self).__name__} has no relation classifier")

    @property
    def has_relation(self) -> bool:
        """Whether Task#1 trains this system."""
        return False

    @property
    def initial_weights(self) -> str:
        """Where a new system's encoder has its weights from, in words.

        Of a model that was saved, `TaggingModel.notes` says it.
        """
        found: str = getattr(getattr(self, "encoder", None), "initial_weights", "random")
        return found

    def anneal(self, progress: float) -> None:
        """Tell the system how far training has come, from 0 to 1."""

    def part_of(self, name: str) -> str:
        """Which group of Algorithm 1 a parameter is of, by its name.

        One of ``head`` (embeddings, θ_biLSTM, θ_CRF), ``relation`` (θ_FCs), ``encoder``
        (θ_RpBERT), ``projection`` (W^v) and ``visual`` (θ_ResNet, in `evidence`).
        """
        first = name.split(".")[0]
        groups = {"encoder": "encoder", "projection": "projection", "evidence": "visual"}
        return "relation" if first == "classifier" else groups.get(first, "head")

    def parts(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter with its group."""
        for name, parameter in self.named_parameters():
            yield self.part_of(name), parameter

    def freeze(self, parts: Collection[str]) -> None:
        """Keep the parameters of some groups, and what they gather in training, as they are."""
        for part, parameter in self.parts():
            if part in parts:
                parameter.requires_grad_(False)
        for module in self.children():
            if isinstance(module, Evidence) and "visual" in parts:
                module.freeze()

    def tag(
        self, batch: Batch, extra: Tensor | None = None, relation_score: Tensor | None = None
    ) -> TaggerOutput:
        """Tag words by ``[e_k; extra_k]`` (Task#2).

        Args:
            extra: contextual vectors of the words, e_k^RpBERT. Shape: (B, W, H).
            relation_score: r, passed through. Shape: (B,).
        """
        # The recurrent part is small and its sums long: it stays in float32 under autocast.
        with torch.autocast(batch.word_mask.device.type, enabled=False):
            words = self.embeddings(batch)
            if extra is not None:
                words = torch.cat([words, extra.float()], dim=-1)
            emissions = self.tagger(words, batch.word_mask)
            losses = None
            if batch.tags is not None:
                crf = self.tagger.crf
                losses = -crf.log_likelihood(emissions, batch.tags, batch.word_mask)
        return TaggerOutput(emissions, relation_score, losses)
