"""biLSTM-CRF + BERT, text only (Table 4).

Devlin, J.; Chang, M.-W.; Lee, K.; and Toutanova, K. 2019. BERT: Pre-training of Deep
Bidirectional Transformers for Language Understanding. In NAACL-HLT, 4171-4186.

The contextual vector of each word, the average of its sub-words, stands beside e_k at the input
of the biLSTM: [e_k; e_k^BERT].
"""

from __future__ import annotations

from rpbert.config.model import BiLstmSettings, TextEncoderSettings
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.encoder import TextImageEncoder, pool_words
from rpbert.types import Batch


class BertOptions(BiLstmSettings):
    """A text encoder beside the tagger."""

    encoder: TextEncoderSettings


class BertTagger(BiLstmSystem):
    """BERT and biLSTM-CRF; blind to the image."""

    Options = BertOptions

    encoder: TextImageEncoder

    def __init__(
        self, encoder: TextImageEncoder, embeddings: WordEmbeddings, tagger: BiLstmCrf
    ) -> None:
        super().__init__(embeddings, tagger)
        self.encoder = encoder

    @classmethod
    def build(cls, options: BertOptions, parts: Parts) -> BertTagger:
        """Assemble the system from its settings."""
        encoder, embeddings = parts.encoder(options.encoder), parts.embeddings()
        return cls(encoder, embeddings, parts.tagger(embeddings.width + encoder.width))

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch by its words alone."""
        text = self.encoder.embed(batch.subwords)
        hidden = self.encoder(text, batch.subword_mask, image=None)
        return self.tag(batch, pool_words(hidden, batch.word_of_subword, *batch.forms.shape))
