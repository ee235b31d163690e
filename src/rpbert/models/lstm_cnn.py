"""LSTM and CNN, joined to tell the text-image relation (Table 3, first column).

Lu, D.; Neves, L.; Carvalho, V.; Zhang, N.; and Ji, H. 2018. Visual Attention Model for Name
Tagging in Multimodal Social Media. In ACL, 1990-1999.

The baseline of the relation task: an LSTM reads the post to its last state h_n, a CNN the image to
one vector v, and a classifier reads both,

    x = W_2 ReLU(W_1 [h_n; v] + b_1) + b_2,   r = softmax(x)_1.

Table 3 cites Lu et al. and says "concatenation of linguistic features from LSTM and visual
features from InceptionNet". Reconstructed: the hidden layer, as wide as the LSTM. Without it x
would be a sum of a part for the text and a part for the image, which cannot say whether the two
agree. Deviations: the CNN is whatever evidence is given, v the mean of its visual tokens; the
LSTM reads word and character embeddings as `bilstm_crf` does. A post without image has r = 0.

It tags no words: only Task#1 trains it, on the relation labels of the data.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rpbert.config.model import EvidenceSettings, ReaderSettings, SystemSettings
from rpbert.evidence.encoders import Evidence
from rpbert.models.build import Parts
from rpbert.models.tagger import System, TaggerOutput, WordEmbeddings, last_state
from rpbert.modules.attention import mean_token
from rpbert.types import Batch


class LstmCnnOptions(SystemSettings):
    """What reads the words, and the evidence."""

    tagger: ReaderSettings = ReaderSettings()
    evidence: EvidenceSettings


class LstmCnn(System):
    """The classifier over [h_n; v].

    Args:
        evidence: image to visual tokens.
        embeddings: e_k.
        lstm: reads e_k in one direction.
        dropout: on e_k, on [h_n; v] and on the hidden layer.
    """

    Options = LstmCnnOptions
    tags_words: ClassVar[bool] = False

    evidence: Evidence
    classifier: nn.Sequential

    def __init__(
        self, evidence: Evidence, embeddings: WordEmbeddings, lstm: nn.LSTM, dropout: float
    ) -> None:
        super().__init__()
        self.evidence = evidence
        self.embeddings = embeddings
        self.lstm = lstm
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(lstm.hidden_size + evidence.width, lstm.hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(lstm.hidden_size, 2),
        )

    @classmethod
    def build(cls, options: LstmCnnOptions, parts: Parts) -> LstmCnn:
        """Assemble the system from its settings."""
        evidence, embeddings = parts.evidence(options.evidence), parts.embeddings()
        settings = options.tagger
        lstm = nn.LSTM(
            embeddings.width,
            settings.lstm_hidden,
            num_layers=settings.lstm_layers,
            dropout=settings.dropout if settings.lstm_layers > 1 else 0.0,
            batch_first=True,
        )
        return cls(evidence, embeddings, lstm, settings.dropout)

    @property
    def has_relation(self) -> bool:
        """Nothing else trains it."""
        return True

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All but the CNN belongs to Task#1 alone, and has the rate of its head."""
        groups = super().parameter_groups()
        groups["relation"] = groups.pop("head") + groups["relation"]
        return groups

    def forward(self, batch: Batch) -> TaggerOutput:
        """r of each post; no tags."""
        logits, shown = self._logits(batch)
        return TaggerOutput(None, logits.softmax(-1)[:, 1] * shown, None)

    def relation_logits(self, batch: Batch) -> Tensor:
        """Task#1. Shape: (B, 2)."""
        return self._logits(batch)[0]

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, 2), and whether a post has an image (B,)."""
        tokens = self.evidence(batch)
        with torch.autocast(batch.word_mask.device.type, enabled=False):
            words = self.dropout(self.embeddings(batch))
            text = last_state(self.lstm, words, batch.word_mask)
            joined = torch.cat([text, mean_token(tokens).float()], dim=-1)
            return self.classifier(joined), tokens.mask.any(1)
