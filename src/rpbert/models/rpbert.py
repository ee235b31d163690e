"""RpBERT: text-image relation propagation (Fig. 2).
Sun et al. 2021. RpBERT: A Text-image Relation Propagation-based BERT Model for Multimodal NER. In
AAAI, 13860-13868.
The post goes through one BERT twice. The first pass reads text T and image V, and its [CLS] output
gives r, how far the image adds to the text (Eq. 2). The second reads T and R ⊙ V (Eq. 3), and its
words go to the biLSTM-CRF as [e_k; e_k^RpBERT].
How the paper's open points are read: by default (`propagation.acts`) R acts where the layers read
V, after the embedding LayerNorm, which would scale R back. The relation classifier (θ_FCs)
is linear on the [CLS] output, and only Task#1 updates it, though Task#2's gradient flows through r
into BERT. W^v learns in both tasks. A post without a usable image is read as text alone and its r
is 0.
Beyond the paper, a post may have several images or kinds of evidence. Each is a separate source:
the first pass reads T and that source alone, r is one score a source, and the second pass reads T
and all sources, each scaled by its own r."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rpbert.config.model import Settings, TextEncoderSettings
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence, side_by_side
from rpbert.models.build import Builder
from rpbert.models.tagger import BiLstmSettings, BiLstmSystem, TaggerOutput, in_float32
from rpbert.modules.encoder import TextImageEncoder, pool_words
from rpbert.modules.gates import GATES, Gate, OracleGate, Propagation
from rpbert.types import Batch, PostImage, VisualTokens


class PropagationSettings(Settings):
    """How r acts on the image and on training."""

    acts: Literal["after_norm", "before_norm", "input"] = "after_norm"
    """What R scales: what the first layer reads of the image and all attention to it; the projected
    blocks before LayerNorm, which scales R away; or what the first layer reads alone."""
    floor: float = Field(0.0, ge=0, lt=1)
    """The share of the image that r = 0 lets through: R = floor + (1 - floor) r; 0 is Eq. 3."""
    gradient_from: float = Field(0.0, ge=0, le=1)
    """Share of training after which Task#2's gradient passes through r into BERT: 0 is always,
    1 is never."""


class RpBertOptions(BiLstmSettings):
    """Text encoder, evidence and gate."""

    former: ClassVar[Mapping[str, Any]] = {"classifier_input": "cls"}

    gate: Literal["soft", "straight_through", "gumbel", "none", "oracle"] = "soft"
    """G of Eq. 4, 5, 6; ``none`` is the paper's "w/o Rp": the whole image, no Task#1; ``oracle``,
    for studies, sets r to the label of each post, in training and in test."""
    propagation: PropagationSettings = PropagationSettings()
    encoder: TextEncoderSettings
    evidence: EvidenceSettings
    classifier_relu: bool = False
    """A ReLU between the relation classifier and the gate, as "FC layers" may be read."""


class RpBert(BiLstmSystem):
    """Fig. 2, from the image blocks to the emissions."""

    Options = RpBertOptions
    encoder: TextImageEncoder
    evidence: Evidence
    projection: nn.Module
    classifier: nn.Module
    gate: Gate | None  # G; None for the whole image

    def __init__(self, options: RpBertOptions, builder: Builder) -> None:
        encoder = builder.encoder(options.encoder, sees_images=True)
        super().__init__(builder, builder.embeddings.width + encoder.width)
        self.encoder = encoder  # θ_RpBERT, shared by both passes
        self.evidence = builder.evidence(options.evidence, encoder)  # f_{i,j}, θ_ResNet
        # W^v has no bias, so that a closed gate leaves nothing of the image.
        self.projection = builder.projection(self.evidence, encoder.input_width)
        self.classifier = nn.Linear(encoder.width, 2)  # θ_FCs
        if options.classifier_relu:
            self.classifier = nn.Sequential(self.classifier, nn.ReLU())
        self.gate = None if options.gate == "none" else GATES[options.gate]()
        self.propagation = Propagation(**options.propagation.model_dump())  # R of r
        encoder.check_acts(options.propagation.acts)
        self.reads_relation = isinstance(self.gate, OracleGate)
        # Where no gate reads the classifier there is no Task#1 (Table 6, "w/o Rp").
        self.has_relation = self.gate is not None and not self.reads_relation

    def anneal(self, progress: float) -> None:
        """Anneal τ of Eq. 6, and let Task#2's gradient through r when it is time."""
        if self.gate is not None:
            self.gate.anneal(progress)
        self.propagation.anneal(progress)

    def forward(self, batch: Batch) -> TaggerOutput:
        """Algorithm 1, lines 8 to 11."""
        text = self.encoder.embed(batch.subwords)  # T
        image = self.blocks(batch)  # V
        return self.read(batch, text, image, self.relation_score(batch, text, image), self.encoder)

    def relation_score(self, batch: Batch, text: Tensor, image: VisualTokens) -> Tensor | None:
        """r of each source (Eq. 2), 0 where there is none; None without propagation.
        Shape: (S, L, H), (B, E, V, H) → (B, E)."""
        if self.gate is None:
            return None
        if not image.mask.shape[2]:  # no post of the batch has evidence
            return text.new_zeros(image.mask.shape[:2])
        if self.reads_relation:
            probabilities = self.gate(_images_by_source(batch)).to(image.mask.device)
        else:
            probabilities = self.gate(self._relation_logits(batch, text, image).flatten(0, 1))
        r: Tensor = probabilities[:, 1].view(image.mask.shape[:2])
        return r * image.mask.any(2)

    def read(
        self,
        batch: Batch,
        text: Tensor,
        image: VisualTokens,
        score: Tensor | None,
        encode: Callable[[Tensor, Tensor, VisualTokens | None], Tensor],
    ) -> TaggerOutput:
        """The second pass: tag words by T (S, L, H) and R ⊙ V of each source (B, E, V, H).
        `score` is r of each source (B, E), None for the whole image; `encode` is the encoder, or
        one that records its attention."""
        if score is not None:
            image = self.propagation(image, score)  # R ⊙ V, Eq. 3
        rows = side_by_side(image).map(lambda part: part[batch.post_of_row])
        hidden = encode(text, batch.subword_mask, rows)
        words = pool_words(hidden, batch.word_of_subword, *batch.forms.shape)  # e_k^RpBERT
        output = self.tag(batch, words, None if score is None else score.amax(1))
        output.source_scores = score
        return output

    def relation_logits(self, batch: Batch) -> Tensor:
        """Task#1, Algorithm 1, line 3: of each post's first source that is there. Shape: (B, 2)."""
        image = self.blocks(batch)
        logits = self._relation_logits(batch, self.encoder.embed(batch.subwords), image)
        first = image.mask.any(2).int().argmax(1)
        return logits[torch.arange(len(batch), device=first.device), first]

    def blocks(self, batch: Batch) -> VisualTokens:
        """Block embeddings b = f W^v of each source, or other tokens. Shape: (B, E, V, H)."""
        tokens = self.evidence.by_source(batch.evidence)
        return tokens._replace(values=self.projection(tokens.values))

    def _relation_logits(self, batch: Batch, text: Tensor, image: VisualTokens) -> Tensor:
        """The first pass over the first row of each post, with each source alone: (B, E, 2)."""
        posts, sources = image.mask.shape[:2]
        rows = batch.first_row[:, None].expand(-1, sources).flatten()
        each = image.map(lambda part: part.flatten(0, 1))
        summary = self.encoder.summary(text[rows], batch.subword_mask[rows], each)
        with in_float32(batch):
            logits: Tensor = self.classifier(summary.float())
        return logits.view(posts, sources, 2)


def _images_by_source(batch: Batch) -> list[PostImage]:
    """What holds the relation of each source of each post; an empty one where none is."""
    return [
        post.images[number] if number < len(post.images) else PostImage()
        for post in batch.posts
        for kind in batch.evidence
        for number in range(kind.of_post.shape[1])
    ]
