"""Unified Multimodal Transformer: attention across modalities, guided by entity spans (Table 5).
Yu et al. 2020. Improving Multimodal Named Entity Recognition via Entity Span Detection with Unified
Multimodal Transformer. In ACL, 3342-3352.
BERT reads the words to H. T(q, c) is a layer of BERT with queries q and context c, V = r W and
V' = r W' are two maps of the visual tokens r:
    text for spans, for tags           S = T_S(H, H),  R = T_R(H, H)
    image-aware word representations   P = T_1(V', R),  A = T_2(R, P)      words ← image ← words
    word-aware visual representations  Q = T_3(R, V)                       words ← image
    visual gate                        g = σ(W_g [A; Q]),  B = g ⊙ Q
    span detection                     e^z = W_z S, a CRF over {O, B, I}
    tagging                            e^y = (1 - λ) W_y [A; B] + λ e^z M, a CRF over the tags
    loss                               -log p(y | e^y) - β log p(z | e^z)
The span task never sees the image, and M (3, K) guides the tags by it: M shares a span's mark among
the tags, O to O alone, B equally to all B-X, I equally to all I-X.
From the authors' code (jefferyYu/UMT): one layer each for T_S, T_R, T_1, T_2, T_3, of BERT's sizes,
dropout and initialisation; λ = β = 0.5; dropout on H, nothing between [A; B] and the tags; no
biLSTM, no word or character embeddings.
Deviations: the sub-words of a word are averaged after BERT, so that cross-modal layers see words,
and a post longer than BERT is read whole; there, every sub-word is a position. W and W' have no
bias; word pieces of captions or of text in the image are V and V' themselves. A post without image
attends to nothing; there, to a stand-in image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rpbert.config.model import Settings, TextEncoderSettings
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence
from rpbert.models.build import Builder
from rpbert.models.tagger import System, SystemSettings, TaggerOutput
from rpbert.modules.attention import CrossAttention
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.encoder import TextImageEncoder, pool_words
from rpbert.storage.published import bert_config
from rpbert.types import Batch

MARKS = ("O", "B", "I")
GUIDANCE = 0.5  # λ
SPAN_WEIGHT = 0.5  # β


class NoTagger(Settings):
    """Nothing: the CRF alone tags."""

    former: ClassVar[Mapping[str, Any]] = {"iob2_decoding": True}


class UmtOptions(SystemSettings):
    """Text encoder and evidence."""

    tagger: NoTagger = NoTagger()
    encoder: TextEncoderSettings
    evidence: EvidenceSettings


class Umt(System):
    """The CRF over e^y."""

    Options = UmtOptions
    encoder: TextImageEncoder
    evidence: Evidence
    projection: nn.ModuleList
    conversion: Tensor

    def __init__(self, options: UmtOptions, builder: Builder) -> None:
        super().__init__()
        tags = builder.vocabulary.tags
        self.encoder = builder.encoder(options.encoder)
        config, width = bert_config(self.encoder.bert.config), self.encoder.width
        self.evidence = builder.evidence(options.evidence, self.encoder)
        maps = (builder.projection(self.evidence, width) for _ in range(2))
        self.projection = nn.ModuleList(maps)  # W, W'
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.read_for_spans = CrossAttention(config)  # T_S
        self.read_for_tags = CrossAttention(config)  # T_R
        self.words_to_image = CrossAttention(config)  # T_1, the image asks
        self.image_to_words = CrossAttention(config)  # T_2, the words ask
        self.look = CrossAttention(config)  # T_3
        self.gate = nn.Linear(2 * width, width)
        self.to_spans = nn.Linear(width, len(MARKS))
        self.to_tags = nn.Linear(2 * width, len(tags))
        self.span_crf = LinearChainCRF(len(MARKS))
        self.tag_crf = LinearChainCRF(len(tags))
        self.register_buffer("conversion", conversion_matrix(tags), persistent=False)  # M

    @property
    def crf(self) -> LinearChainCRF:
        """The CRF over the tags."""
        return self.tag_crf

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch; the loss is that of both tasks."""
        hidden = self.encoder(self.encoder.embed(batch.subwords), batch.subword_mask, image=None)
        words = self.dropout(pool_words(hidden, batch.word_of_subword, *batch.forms.shape))  # H
        tokens = self.evidence(batch)
        spans = self.to_spans(self.read_for_spans(words, words, batch.word_mask))  # e^z
        joined = self.join(words, batch.word_mask, tokens.values, tokens.mask)
        emissions = (1 - GUIDANCE) * self.to_tags(joined) + GUIDANCE * spans @ self.conversion
        output = self.output(batch, emissions.float())
        if batch.tags is not None and output.losses is not None:
            marks = self.conversion.argmax(0)[batch.tags]  # z: the row of M that a tag is in
            likelihood = self.span_crf.log_likelihood(spans, marks, batch.word_mask)
            output.losses = output.losses - SPAN_WEIGHT * likelihood
        return output

    def join(self, words: Tensor, word_mask: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """[A; B] of every word from H and r, each with its mask.
        Shape: (B, W, H), (B, W), (B, V, d_v), (B, V) → (B, W, 2 H)."""
        first, second = (project(tokens) for project in self.projection)  # V, V'
        read = self.read_for_tags(words, words, word_mask)  # R
        looked_at = self.words_to_image(second, read, word_mask)  # P
        aware = self.image_to_words(read, looked_at, mask)  # A
        visual = self.look(read, first, mask)  # Q
        gate = self.gate(torch.cat([aware, visual], dim=-1)).sigmoid()
        return torch.cat([aware, gate * visual], dim=-1)


def conversion_matrix(tags: Sequence[str]) -> Tensor:
    """M: how much of a mark's score each tag receives. Shape: (3, K)."""
    shares = [[float(tag[0] == mark) for tag in tags] for mark in MARKS]
    matrix = torch.tensor(shares)
    return matrix / matrix.sum(1, keepdim=True)
