"""Modality attention: how much word, characters and image count for each word.
Moon et al. 2018. Multimodal Named Entity Recognition for Short Social Media Posts. In NAACL-HLT.
For each word t, x^(w) is made of its vector, x^(c) of its characters and x^(v) of the image:
    [a^(w), a^(c), a^(v)] = σ(W_m [x^(w); x^(c); x^(v)] + b_m)
    α^(m) = exp(a^(m)) / Σ_m' exp(a^(m'))
    x̄_t = Σ_m α^(m) x^(m)
and the biLSTM-CRF reads x̄_t. Reconstructed: σ is the logistic function; each x is a linear map to
the width of the word vectors. Deviations: each x is layer-normalised, or the scales decide what the
sum is of; the image vector is the mean of the visual tokens. Without image x^(v) has no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.models.build import Builder
from rpbert.models.tagger import FusionOptions, FusionSystem, TaggerOutput, in_float32
from rpbert.modules.attention import masked_softmax, mean_token
from rpbert.types import Batch


class ModalityAttention(FusionSystem):
    """The tagger over x̄_t."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        width = builder.embeddings.vectors.width
        super().__init__(options, builder, width, reads=width)
        self.word_map = nn.Linear(width, width)
        self.character_map = nn.Linear(self.embeddings.characters.width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in "wcv")
        self.weigh = nn.Linear(3 * width, 3)  # W_m, b_m

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        image = self.projection(mean_token(tokens))
        with in_float32(batch):
            mixed = self.mix(self.embeddings(batch), image.float(), tokens.mask.any(1))
            return self.score(batch, self.tagger.read(mixed, batch.word_mask))

    def mix(self, words: Tensor, image: Tensor, has_image: Tensor) -> Tensor:
        """x̄_t of every word from e_k and the projected image vector.
        Shape: (B, W, D), (B, D_w), (B,) → (B, W, D_w)."""
        width = self.embeddings.vectors.width
        of_word, of_characters, of_image = self.norms
        word = of_word(self.word_map(words[..., :width]))  # x^(w)
        spelling = of_characters(self.character_map(words[..., width:]))  # x^(c)
        seen = of_image(image) * has_image[:, None]  # x^(v), zeros without an image
        modalities = torch.stack([word, spelling, seen[:, None].expand_as(word)], dim=2)
        scores = self.weigh(modalities.flatten(2)).sigmoid()  # a, Shape: (B, W, 3)
        always = torch.ones_like(has_image)
        there = torch.stack([always, always, has_image], dim=1)[:, None]
        weights = masked_softmax(scores, there)  # α
        return (weights[..., None] * modalities).sum(2)
