"""Gated fusion: words aligned with each other in sight of the image.

Arshad, O.; Gallo, I.; Nawaz, S.; and Calefati, A. 2019. Aiding Intra-Text Representations with
Visual Context for Multimodal Named Entity Recognition. In ICDAR, 337-342.

Between biLSTM (h_t) and CRF, with the regions v_i = tanh(W_I r_i + b_I) of the image:

    visual attention     α_ti = softmax_i(w · tanh(W_q h_t + W_k v_i + b)),  v̂_t = Σ_i α_ti v_i
    token alignment      P_tj = softmax_j(W tanh(W_1 h_j + W_2 [h_t; v̂_t] + b_1)),
                         s_t = Σ_j P_tj ⊙ h_j
    gated sum            g_t = σ(W_s s_t + W_v v̂_t + b_g),  u_t = g_t ⊙ v̂_t + (1 - g_t) ⊙ s_t
    to the CRF           [h_t; u_t]

P_tj is a vector: every feature of a word has a weight of its own, the "multi-dimensional"
self-attention of Shen et al. 2018 ("DiSAN: Directional Self-Attention Network for RNN/CNN-Free
Language Understanding", Eq. 6 and 7), without its mask of directions.

The paper's text and code could not be read beside this file. Known of it are its abstract (it
"extends multi-dimensional self attention technique, where now image helps to enhance
relationship between words") and what the RpBERT paper says: additive attention between a word query
and the image's features, a token alignment feature, and a gate that sums the two. Reconstructed
from there: that v̂_t stands in the query of the alignment, the form of the gate (that of DiSAN),
the joining of u_t with h_t, and every width (that of h_t). Deviations: regions are whatever
evidence is given, there 49 of VGG-19; embeddings, biLSTM and CRF are those of `bilstm_crf`. A post
without image has v̂_t = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.config.model import BiLstmSettings, EvidenceSettings
from rpbert.evidence.encoders import Evidence
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.attention import AdditiveAttention, FeaturewiseAttention
from rpbert.types import Batch


class GatedFusionOptions(BiLstmSettings):
    """An image in whose sight words are aligned."""

    evidence: EvidenceSettings


class GatedFusion(BiLstmSystem):
    """The CRF over [h_t; u_t].

    Args:
        evidence: image to visual tokens r_i.
        projection: W_I.
    """

    Options = GatedFusionOptions

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
        width = tagger.width
        self.offset = nn.Parameter(torch.zeros(width))  # b_I
        self.visual_attention = AdditiveAttention(query=width, key=width, hidden=width)
        self.alignment = FeaturewiseAttention(query=2 * width, key=width)
        self.gate = nn.Linear(2 * width, width)  # W_s, W_v, b_g

    @classmethod
    def build(cls, options: GatedFusionOptions, parts: Parts) -> GatedFusion:
        """Assemble the system from its settings."""
        evidence, embeddings = parts.evidence(options.evidence), parts.embeddings()
        tagger = parts.tagger(embeddings.width, fused=2 * parts.hidden_width)
        return cls(evidence, parts.projection(evidence, tagger.width), embeddings, tagger)

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        regions = (self.projection(tokens.values) + self.offset).tanh()
        hidden = self.hidden(batch)
        fused = self.fuse(hidden, batch.word_mask, regions, tokens.mask)
        return self.score(batch, torch.cat([hidden, fused], dim=-1))

    def fuse(self, hidden: Tensor, word_mask: Tensor, regions: Tensor, mask: Tensor) -> Tensor:
        """u_t of every word.

        Args:
            hidden: h_t. Shape: (B, W, F), `word_mask` (B, W).
            regions: v_i. Shape: (B, V, F), `mask` (B, V).

        Shape: (B, W, F).
        """
        seen = self.visual_attention(hidden, regions, mask)  # v̂_t
        aligned = self.alignment(torch.cat([hidden, seen], dim=-1), hidden, word_mask)  # s_t
        gate = self.gate(torch.cat([aligned, seen], dim=-1)).sigmoid()  # g_t
        summed: Tensor = gate * seen + (1 - gate) * aligned
        return summed
