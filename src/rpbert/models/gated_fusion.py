"""Gated fusion: words aligned with each other in view of the image.
Arshad et al. 2019. Aiding Intra-Text Representations with Visual Context for Multimodal Named
Entity Recognition. In ICDAR, 337-342.
Between biLSTM (h_t) and CRF, with the regions v_i = tanh(W_I r_i + b_I) of the image:
    visual attention     α_ti = softmax_i(w · tanh(W_q h_t + W_k v_i + b)),  v̂_t = Σ_i α_ti v_i
    token alignment      P_tj = softmax_j(W tanh(W_1 h_j + W_2 [h_t; v̂_t] + b_1)),
                         s_t = Σ_j P_tj ⊙ h_j
    gated sum            g_t = σ(W_s s_t + W_v v̂_t + b_g),  u_t = g_t ⊙ v̂_t + (1 - g_t) ⊙ s_t
    to the CRF           [h_t; u_t]
P_tj is a vector, one weight a feature: the "multi-dimensional" self-attention of Shen et al. 2018
("DiSAN", Eq. 6 and 7), without its mask of directions. A post without image has v̂_t = 0.
Reconstructed from the paper's abstract and the RpBERT paper: v̂_t in the query of the alignment, the
form of the gate, u_t joined with h_t, and every width (that of h_t)."""

from __future__ import annotations

import torch
from torch import nn

from rpbert.models.build import Builder
from rpbert.models.tagger import FusionOptions, FusionSystem, TaggerOutput
from rpbert.modules.attention import AdditiveAttention, FeaturewiseAttention
from rpbert.types import Batch


class GatedFusion(FusionSystem):
    """The CRF over [h_t; u_t]; the projection is W_I."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        width = builder.hidden_width
        super().__init__(options, builder, width, tagged=2 * width)
        self.offset = nn.Parameter(torch.zeros(width))  # b_I
        self.visual_attention = AdditiveAttention(query=width, key=width, hidden=width)
        self.alignment = FeaturewiseAttention(query=2 * width, key=width)
        self.gate = nn.Linear(2 * width, width)  # W_s, W_v, b_g

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        regions = (self.projection(tokens.values) + self.offset).tanh()  # v_i (B, V, F)
        hidden = self.hidden(batch)  # h_t (B, W, F)
        seen = self.visual_attention(hidden, regions, tokens.mask)  # v̂_t
        query = torch.cat([hidden, seen], dim=-1)
        aligned = self.alignment(query, hidden, batch.word_mask)  # s_t
        gate = self.gate(torch.cat([aligned, seen], dim=-1)).sigmoid()  # g_t
        fused = gate * seen + (1 - gate) * aligned  # u_t
        return self.score(batch, torch.cat([hidden, fused], dim=-1))
