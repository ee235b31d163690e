"""biLSTM-CRF on word and character embeddings, text only (Table 4, first row).

Lample, G.; Ballesteros, M.; Subramanian, S.; Kawakami, K.; and Dyer, C. 2016. Neural
Architectures for Named Entity Recognition. In NAACL-HLT, 260-270.

Deviations: two LSTM layers of 256 as in Table 2 of the RpBERT paper, not one of 100; dropout of
0.5 on input, between layers and on output; tags are IOB2, not IOBES.
"""

from __future__ import annotations

from rpbert.config.model import BiLstmSettings
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmSystem, TaggerOutput
from rpbert.types import Batch


class BiLstmCrfTagger(BiLstmSystem):
    """Embeddings e_k, biLSTM, CRF; blind to the image."""

    Options = BiLstmSettings

    @classmethod
    def build(cls, options: BiLstmSettings, parts: Parts) -> BiLstmCrfTagger:
        """Assemble the system from its settings."""
        embeddings = parts.embeddings()
        return cls(embeddings, parts.tagger(embeddings.width))

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch by its words alone."""
        return self.tag(batch)
