"""Modality attention: what of word, characters and image each word is read by.

Moon, S.; Neves, L.; and Carvalho, V. 2018. Multimodal Named Entity Recognition for Short Social
Media Posts. In NAACL-HLT, 852-860.

For each word t, x^(w) is made of its vector, x^(c) of its characters and x^(v) of the image:

    [a^(w), a^(c), a^(v)] = σ(W_m [x^(w); x^(c); x^(v)] + b_m)
    α^(m) = exp(a^(m)) / Σ_m' exp(a^(m'))
    x̄_t = Σ_m α^(m) x^(m)

and x̄_t is what the biLSTM-CRF reads. The sum needs one width and one scale for all: each x is a
linear map of what it is made of to the width of the word vectors, then layer-normalised.

The paper's code is not public. Reconstructed: σ is read as the logistic function, so that no
modality ever has a weight below 1 / (1 + 2e) = 0.16; the maps to one width. The normalisation is
ours: without it the scales decide what the sum is of, before any weight is learnt. Deviations: the
image vector is the mean of the visual tokens of the evidence given, not of Inception; biLSTM,
dropout and character encoder are those of `bilstm_crf`. A post without image shares its weights
between word and characters alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.config.model import BiLstmSettings, EvidenceSettings
from rpbert.evidence.encoders import Evidence
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.attention import masked_softmax, mean_token
from rpbert.types import Batch


class ModalityAttentionOptions(BiLstmSettings):
    """An image beside word and characters."""

    evidence: EvidenceSettings


class ModalityAttention(BiLstmSystem):
    """The tagger over x̄_t.

    Args:
        evidence: image to visual tokens.
        projection: the global image vector to the width of the word vectors.
    """

    Options = ModalityAttentionOptions

    evidence: Evidence
    projection: nn.Module

    def __init__(
        self,
        evidence: Evidence,
        projection: nn.Module,
        embeddings: WordEmbeddings,
        tagger: BiLstmCrf,
    ) -> None:
        super().__init__(embeddings, tagger)
        self.evidence = evidence
        self.projection = projection
        width = embeddings.vectors.width
        self.word_map = nn.Linear(width, width)
        self.character_map = nn.Linear(embeddings.characters.width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in "wcv")
        self.weigh = nn.Linear(3 * width, 3)  # W_m, b_m

    @classmethod
    def build(cls, options: ModalityAttentionOptions, parts: Parts) -> ModalityAttention:
        """Assemble the system from its settings."""
        evidence, embeddings = parts.evidence(options.evidence), parts.embeddings()
        width = embeddings.vectors.width
        return cls(evidence, parts.projection(evidence, width), embeddings, parts.tagger(width))

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        image = self.projection(mean_token(tokens))
        with torch.autocast(batch.word_mask.device.type, enabled=False):
            mixed = self.mix(self.embeddings(batch), image.float(), tokens.mask.any(1))
            return self.output(batch, self.tagger(mixed, batch.word_mask))

    def mix(self, words: Tensor, image: Tensor, shown: Tensor) -> Tensor:
        """x̄_t of every word.

        Args:
            words: e_k. Shape: (B, W, D).
            image: what x^(v) is made of. Shape: (B, D_w).
            shown: whether a post has an image. Shape: (B,).

        Shape: (B, W, D_w).
        """
        width = self.embeddings.vectors.width
        of_word, of_characters, of_image = self.norms
        word = of_word(self.word_map(words[..., :width]))  # x^(w)
        spelling = of_characters(self.character_map(words[..., width:]))  # x^(c)
        seen = of_image(image) * shown[:, None]  # x^(v), zeros without an image
        modalities = torch.stack([word, spelling, seen[:, None].expand_as(word)], dim=2)
        scores = self.weigh(modalities.flatten(2)).sigmoid()  # a, Shape: (B, W, 3)
        always = torch.ones_like(shown)
        there = torch.stack([always, always, shown], dim=1)[:, None]
        weights = masked_softmax(scores, there)  # α
        return (weights[..., None] * modalities).sum(2)
