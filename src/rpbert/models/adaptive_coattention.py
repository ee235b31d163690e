"""Adaptive co-attention: words attend to the image, the image to the words, and gates decide.
Zhang et al. 2018. Adaptive Co-attention Network for Named Entity Recognition in Tweets. In AAAI.
Between biLSTM (h_t) and CRF, with the regions v_i = tanh(W_I r_i + b_I) of the image:
    word-guided visual attention     α_ti = softmax_i(w_α · tanh(W_v v_i + W_h h_t + b))
                                     v̂_t = Σ_i α_ti v_i
    image-guided textual attention   β_tj = softmax_j(w_β · tanh(W_x h_j + W_v̂ v̂_t + b'))
                                     ĥ_t = Σ_j β_tj h_j
    gated multimodal fusion          a_t = tanh(W_a v̂_t + b_a),  c_t = tanh(W_c ĥ_t + b_c)
                                     g_t = σ(w_g · [a_t; c_t]),   m_t = g_t a_t + (1 - g_t) c_t
    filtration gate                  s_t = σ(w_s · [h_t; m_t] + b_s),  u_t = s_t tanh(W_m m_t + b_m)
    to the CRF                       [h_t; u_t]
Deviations: the authors' Keras code (in the copy Euruson/NERmultimodal) joins the terms inside each
tanh, so that the softmax cancels the word's term and W_h never learns; here they are added. It also
adds a_t and c_t, computes s_t from m_t alone and maps m_t without tanh; the equations here are
those of public reimplementations. d is the width of h_t, not 200. A post without image has v̂_t = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.models.build import Builder
from rpbert.models.tagger import FusionOptions, FusionSystem, TaggerOutput
from rpbert.modules.attention import AdditiveAttention
from rpbert.types import Batch


class AdaptiveCoAttention(FusionSystem):
    """The CRF over [h_t; u_t]; the projection is W_I."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        width = builder.hidden_width
        super().__init__(options, builder, width, tagged=2 * width)
        self.offset = nn.Parameter(torch.zeros(width))  # b_I
        self.visual_attention = AdditiveAttention(query=width, key=width, hidden=width)
        self.textual_attention = AdditiveAttention(query=width, key=width, hidden=width)
        self.of_image = nn.Linear(width, width)  # W_a, b_a
        self.of_text = nn.Linear(width, width)  # W_c, b_c
        self.fusion_gate = nn.Linear(2 * width, 1, bias=False)  # w_g
        self.filtration_gate = nn.Linear(2 * width, 1)  # w_s, b_s
        self.filtered = nn.Linear(width, width)  # W_m, b_m

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        regions = (self.projection(tokens.values) + self.offset).tanh()  # v_i (B, V, F)
        hidden = self.hidden(batch)  # h_t (B, W, F)
        seen = self.visual_attention(hidden, regions, tokens.mask)  # v̂_t
        read = self.textual_attention(seen, hidden, batch.word_mask)  # ĥ_t
        image, text = self.of_image(seen).tanh(), self.of_text(read).tanh()  # a_t, c_t
        gate = self.fusion_gate(torch.cat([image, text], dim=-1)).sigmoid()  # g_t
        mixed = gate * image + (1 - gate) * text  # m_t
        passed = self.filtration_gate(torch.cat([hidden, mixed], dim=-1)).sigmoid()  # s_t
        filtered: Tensor = passed * self.filtered(mixed).tanh()  # u_t
        return self.score(batch, torch.cat([hidden, filtered], dim=-1))
