"""Visual attention (Table 4), and LSTM with CNN to classify the relation (Table 3, first column).
Lu et al. 2018. Visual Attention Model for Name Tagging in Multimodal Social Media. In ACL.
An LSTM reads the post to a query Q, its last state. Q weighs the regions v_i of the image, and
their weighted sum v_c joins each output h_t of the biLSTM through two gates:
    α_i = softmax_i(w · tanh(W_t Q + W_v v_i + b))           v_c = Σ_i α_i v_i
    β_v = σ(W_v' h_t + U_v v_c + b_v)                        β_w = σ(W_w h_t + U_w v_c + b_w)
    m_t = tanh(W_m h_t + U_m v_c + b_m)                      w_t = β_w ⊙ h_t + β_v ⊙ m_t
The CRF tags by w_t. A post without image has v_c = 0. Deviations: the paper adds tanh(W_t Q) to
tanh(W_v v_i), which the softmax cancels; here the sum is inside the tanh. The equations are as
others quote them, and the widths (that of h_t) reconstructed.
`LstmCnn`, the baseline of the relation task, classifies the last state h_n of an LSTM and one
vector v of the image, the mean of the visual tokens:
    x = W_2 ReLU(W_1 [h_n; v] + b_1) + b_2,   r = softmax(x)_1.
Reconstructed: the hidden layer, as wide as the LSTM; without it x is a term of the text plus one of
the image, which cannot say whether they agree. A post without image has r = 0. It tags no words:
only Task#1 trains it, on the relation labels of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.config.model import TaggerSettings
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence
from rpbert.models.build import Builder, build_lstm, last_state
from rpbert.models.tagger import (
    FusionOptions,
    FusionSystem,
    System,
    SystemSettings,
    TaggerOutput,
    in_float32,
)
from rpbert.modules.attention import AdditiveAttention, mean_token
from rpbert.modules.embeddings import Lstm
from rpbert.types import Batch


class VisualAttention(FusionSystem):
    """The CRF over w_t."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        width = builder.hidden_width
        super().__init__(options, builder, width)
        self.asker = Lstm(self.embeddings.width, width, batch_first=True)
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


class LstmCnnOptions(SystemSettings):
    """The reader of the words, and the evidence."""

    tagger: TaggerSettings = TaggerSettings()
    evidence: EvidenceSettings


class LstmCnn(System):
    """The classifier over [h_n; v]."""

    Options = LstmCnnOptions
    tags_words = False
    has_relation = True
    evidence: Evidence
    classifier: nn.Sequential

    def __init__(self, options: LstmCnnOptions, builder: Builder) -> None:
        super().__init__()
        width, dropout = options.tagger.lstm_hidden, options.tagger.dropout
        self.evidence = builder.evidence(options.evidence)
        self.embeddings = builder.embeddings
        self.lstm = build_lstm(self.embeddings.width, options.tagger, bidirectional=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width + self.evidence.width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, 2),
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All but the CNN belongs to Task#1 alone."""
        groups = super().parameter_groups()
        groups["relation"] = groups.pop("head") + groups["relation"]
        return groups

    def forward(self, batch: Batch) -> TaggerOutput:
        """r of each post; no tags."""
        logits, has_image = self._logits(batch)
        return TaggerOutput(None, logits.softmax(-1)[:, 1] * has_image, None)

    def relation_logits(self, batch: Batch) -> Tensor:
        """Task#1. Shape: (B, 2)."""
        return self._logits(batch)[0]

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, 2), and whether a post has an image (B,)."""
        tokens = self.evidence(batch)
        with in_float32(batch):
            words = self.dropout(self.embeddings(batch))
            text = last_state(self.lstm, words, batch.word_mask)
            joined = torch.cat([text, mean_token(tokens).float()], dim=-1)
            return self.classifier(joined), tokens.mask.any(1)
