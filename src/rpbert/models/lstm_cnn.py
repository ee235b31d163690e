"""LSTM and CNN, joined to classify the text-image relation (Table 3, first column).

Lu, D.; Neves, L.; Carvalho, V.; Zhang, N.; and Ji, H. 2018. Visual Attention Model for Name
Tagging in Multimodal Social Media. In ACL, 1990-1999.

The baseline of the relation task: an LSTM reads the post to its last state h_n, a CNN the image to
one vector v, the mean of the visual tokens, and a classifier reads both,

    x = W_2 ReLU(W_1 [h_n; v] + b_1) + b_2,   r = softmax(x)_1.

Reconstructed: the hidden layer, as wide as the LSTM; without it x is a term of the text plus one of
the image, which cannot say whether they agree. A post without image has r = 0. It tags no words:
only Task#1 trains it, on the relation labels of the data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.config.model import ReaderSettings
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence
from rpbert.models.build import Builder, build_lstm, last_state
from rpbert.models.tagger import System, SystemSettings, TaggerOutput, in_float32
from rpbert.modules.attention import mean_token
from rpbert.types import Batch


class LstmCnnOptions(SystemSettings):
    """The reader of the words, and the evidence."""

    tagger: ReaderSettings = ReaderSettings()
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
        settings = options.tagger
        width, dropout = settings.lstm_hidden, settings.dropout
        self.evidence = builder.evidence(options.evidence)
        self.embeddings = builder.embeddings
        self.lstm = build_lstm(self.embeddings.width, settings, bidirectional=False)
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
