"""biLSTM-CRF on text alone (Table 4, first row), and biLSTM-CRF + BERT (Table 4).
Lample et al. 2016. Neural Architectures for Named Entity Recognition. In NAACL-HLT, 260-270.
Devlin et al. 2019. BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding. In NAACL-HLT, 4171-4186.
The biLSTM reads word and character embeddings e_k, or [e_k; e_k^BERT], where e_k^BERT is the mean
of BERT's last hidden states over the sub-words of word k.
Deviations: two LSTM layers of 256 as in Table 2 of the RpBERT paper, not one of 100; dropout of
0.5 on input, between layers and on output; tags are IOB2, not IOBES."""

from __future__ import annotations

from rpbert.config.model import TextEncoderSettings
from rpbert.models.build import Builder
from rpbert.models.tagger import BiLstmSettings, BiLstmSystem, TaggerOutput
from rpbert.modules.encoder import TextImageEncoder, pool_words
from rpbert.types import Batch


class BiLstmCrfTagger(BiLstmSystem):
    """The tagger over e_k."""

    Options = BiLstmSettings

    def __init__(self, options: BiLstmSettings, builder: Builder) -> None:
        super().__init__(builder)

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        return self.tag(batch)


class BertOptions(BiLstmSettings):
    """A text encoder before the tagger."""

    encoder: TextEncoderSettings


class BertTagger(BiLstmSystem):
    """The tagger over [e_k; e_k^BERT]."""

    Options = BertOptions
    encoder: TextImageEncoder

    def __init__(self, options: BertOptions, builder: Builder) -> None:
        encoder = builder.encoder(options.encoder)
        super().__init__(builder, builder.embeddings.width + encoder.width)
        self.encoder = encoder

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        hidden = self.encoder(self.encoder.embed(batch.subwords), batch.subword_mask, image=None)
        return self.tag(batch, pool_words(hidden, batch.word_of_subword, *batch.forms.shape))
