"""Visual attention: the regions that a post's text asks for, gated into each word.

Lu, D.; Neves, L.; Carvalho, V.; Zhang, N.; and Ji, H. 2018. Visual Attention Model for Name
Tagging in Multimodal Social Media. In ACL, 1990-1999.

An LSTM reads the post to a query Q, its last state. Q weighs the regions v_i of the image, and
their weighted sum v_c joins each output h_t of the biLSTM through two gates:

    α_i = softmax_i(w · tanh(W_t Q + W_v v_i + b))           v_c = Σ_i α_i v_i
    β_v = σ(W_v' h_t + U_v v_c + b_v)                        β_w = σ(W_w h_t + U_w v_c + b_w)
    m_t = tanh(W_m h_t + U_m v_c + b_m)                      w_t = β_w ⊙ h_t + β_v ⊙ m_t

The CRF tags by w_t. A post without image has v_c = 0.

Deviations: the paper adds tanh(W_t Q) to tanh(W_v v_i), which the softmax cancels; here the sum is
inside the tanh. The equations are as others quote them, and the widths (that of h_t) reconstructed.
"""

from __future__ import annotations

import torch
from torch import nn

from rpbert.models.build import Builder, last_state
from rpbert.models.tagger import FusionOptions, FusionSystem, TaggerOutput, in_float32
from rpbert.modules.attention import AdditiveAttention
from rpbert.types import Batch


class VisualAttention(FusionSystem):
    """The CRF over w_t."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        width = builder.hidden_width
        super().__init__(options, builder, width)
        self.asker = nn.LSTM(self.embeddings.width, width, batch_first=True)
        self.attention = AdditiveAttention(query=width, key=width, hidden=width)
        self.visual_gate = nn.Linear(2 * width, width)  # W_v', U_v, b_v
        self.word_gate = nn.Linear(2 * width, width)  # W_w, U_w, b_w
        self.join = nn.Linear(2 * width, width)  # W_m, U_m, b_m

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        regions = self.projection(tokens.values)  # v_i (B, V, F)
        with in_float32(batch):
            words = self.embeddings(batch)
            query = last_state(self.asker, self.tagger.dropout(words), batch.word_mask)
            hidden = self.tagger.read(words, batch.word_mask)  # h_t (B, W, F)
        context = self.attention(query[:, None], regions, tokens.mask)  # v_c (B, 1, F)
        both = torch.cat([hidden, context.expand_as(hidden)], dim=-1)
        joined = self.join(both).tanh()  # m_t
        visual, word = self.visual_gate(both).sigmoid(), self.word_gate(both).sigmoid()  # β_v, β_w
        return self.score(batch, word * hidden + visual * joined)
