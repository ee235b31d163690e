"""RpBERT: text-image relation propagation (Fig. 2).

Sun, L.; Wang, J.; Zhang, K.; Su, Y.; and Weng, F. 2021. RpBERT: A Text-image Relation
Propagation-based BERT Model for Multimodal NER. In AAAI, 13860-13868.

The post goes through one BERT twice. The first pass sees text T and image V and its [CLS] says
how far the image adds to the text: r (Eq. 2). The second sees T and R ⊙ V, so much of the image
as r lets through (Eq. 3), and its words go to the biLSTM-CRF as [e_k; e_k^RpBERT].

How the paper's open points are read:

- R ⊙ V scales the projected blocks before segment and position embeddings are added.
- The relation classifier (θ_FCs) is linear on the [CLS] output; a ReLU after it is an option, and
  so is the mean of the text tokens before it.
  Only Task#1 updates it, though Task#2's gradient flows through r into BERT.
- W^v learns in both tasks.
- A post without a usable image is read as text alone and its r is 0.

Beyond the paper a post may show several images. Each is a source of its own: the first pass sees T
and that source alone, r is one score a source, and the second pass sees T and all sources, each
scaled by its own r.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from rpbert.config.model import BiLstmSettings, EvidenceSettings, Settings, TextEncoderSettings
from rpbert.evidence.encoders import Evidence, VisualTokens, side_by_side
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.encoder import TextImageEncoder, pool_words
from rpbert.modules.gates import GATES, Gate, OpenGate, OracleGate, Propagation
from rpbert.types import Batch, PostImage

Encode: TypeAlias = Callable[[Tensor, Tensor, VisualTokens | None], Tensor]
"""Maps (S, L, H), (S, L), (S, V, H) → (S, L, H) as `TextImageEncoder` does."""


Summarise: TypeAlias = Callable[[TextImageEncoder, Tensor, Tensor, VisualTokens], Tensor]
"""What the relation classifier reads of a pair. Shape: (B, L, H), (B, L), (B, V, H) → (B, H)."""


def cls_summary(
    encoder: TextImageEncoder, text: Tensor, mask: Tensor, image: VisualTokens
) -> Tensor:
    """The [CLS] output, as in Fig. 2."""
    return encoder.summary(text, mask, image)


def mean_summary(
    encoder: TextImageEncoder, text: Tensor, mask: Tensor, image: VisualTokens
) -> Tensor:
    """The mean output of all text tokens, for encoders that were trained for it, as MiniLM was."""
    hidden: Tensor = encoder(text, mask, image)
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


SUMMARIES: dict[str, Summarise] = {"cls": cls_summary, "mean": mean_summary}


class PropagationSettings(Settings):
    """How r acts on the image and on training."""

    floor: float = Field(0.0, ge=0, lt=1)
    """The share of the image that r = 0 lets through: R = floor + (1 - floor) r; 0 is Eq. 3."""
    gradient_from: float = Field(0.0, ge=0, le=1)
    """Share of training after which Task#2's gradient passes through r into BERT: 0 is always,
    1 is never."""


class RpBertOptions(BiLstmSettings):
    """Text encoder, evidence and gate."""

    gate: Literal["soft", "straight_through", "gumbel", "none", "oracle"] = "soft"
    """G of Eq. 4, 5, 6; ``none`` is the paper's "w/o Rp": the whole image, no Task#1; ``oracle``,
    for studies, sets r to the label of each post, in training and in test."""
    propagation: PropagationSettings = PropagationSettings()
    encoder: TextEncoderSettings
    evidence: EvidenceSettings
    classifier_input: Literal["cls", "mean"] = "cls"
    """What the relation classifier reads: the output of [CLS], or the mean over all text tokens."""
    classifier_relu: bool = False
    """A ReLU between the relation classifier and the gate, as "FC layers" may be read."""


class RpBert(BiLstmSystem):
    """Fig. 2, from the image blocks to the emissions.

    Args:
        encoder: the BERT both passes share, θ_RpBERT.
        evidence: image to blocks f_{i,j}, θ_ResNet; or other visual tokens in their place.
        projection: W^v, without bias, so that a closed gate leaves nothing of the image.
        classifier: [CLS] to the logits of (does not add, adds), θ_FCs.
        gate: G (Eq. 4, 5, 6).
        propagation: R of r (Eq. 3).
        summarise: what the classifier reads of the first pass.
    """

    Options = RpBertOptions

    encoder: TextImageEncoder
    evidence: Evidence
    projection: nn.Module
    classifier: nn.Module

    def __init__(
        self,
        encoder: TextImageEncoder,
        evidence: Evidence,
        projection: nn.Module,
        classifier: nn.Module,
        gate: Gate,
        embeddings: WordEmbeddings,
        tagger: BiLstmCrf,
        propagation: Propagation,
        summarise: Summarise = cls_summary,
    ) -> None:
        super().__init__(embeddings, tagger)
        self.encoder = encoder
        self.evidence = evidence
        self.projection = projection
        self.classifier = classifier
        self.gate = gate
        self.propagation = propagation
        self.summarise = summarise

    @classmethod
    def build(cls, options: RpBertOptions, parts: Parts) -> RpBert:
        """Assemble the system from its settings."""
        encoder = parts.encoder(options.encoder, sees_images=True)
        evidence = parts.evidence(options.evidence, encoder)
        embeddings = parts.embeddings()
        classifier: nn.Module = nn.Linear(encoder.width, 2)
        if options.classifier_relu:
            classifier = nn.Sequential(classifier, nn.ReLU())
        return cls(
            encoder=encoder,
            evidence=evidence,
            projection=parts.projection(evidence, encoder.input_width),
            classifier=classifier,
            gate=OracleGate() if options.gate == "oracle" else GATES[options.gate](),
            embeddings=embeddings,
            tagger=parts.tagger(embeddings.width + encoder.width),
            propagation=Propagation(**options.propagation.model_dump()),
            summarise=SUMMARIES[options.classifier_input],
        )

    @property
    def has_relation(self) -> bool:
        """Where nothing reads what the classifier says, Task#1 is left out (Table 6, "w/o Rp")."""
        return not isinstance(self.gate, OpenGate | OracleGate)

    @property
    def reads_relation(self) -> bool:
        """The oracle is given the labels."""
        return isinstance(self.gate, OracleGate)

    def anneal(self, progress: float) -> None:
        """Anneal τ of Eq. 6, and let Task#2's gradient through r once it is time."""
        self.gate.anneal(progress)
        self.propagation.anneal(progress)

    def forward(self, batch: Batch) -> TaggerOutput:
        """Algorithm 1, lines 8 to 11."""
        text = self.encoder.embed(batch.subwords)  # T
        image = self.blocks(batch)  # V
        return self.read(batch, text, image, self.relation_score(batch, text, image), self.encoder)

    def relation_score(self, batch: Batch, text: Tensor, image: VisualTokens) -> Tensor | None:
        """r of each source (Eq. 2), 0 where there is none; None without propagation. Shape: (B, E).

        Args:
            image: V of each source. Shape: (B, E, V, H).
        """
        match self.gate:
            case OpenGate():
                return None
            case OracleGate():
                probabilities = self.gate(_images_by_source(batch)).to(image.mask.device)
            case _:
                logits = self._relation_logits(batch, text, image)
                probabilities = self.gate(logits.flatten(0, 1))
        r: Tensor = probabilities[:, 1].view(image.mask.shape[:2])
        return r * image.mask.any(2)

    def read(
        self,
        batch: Batch,
        text: Tensor,
        image: VisualTokens,
        score: Tensor | None,
        encode: Encode,
    ) -> TaggerOutput:
        """The second pass: tag words by T and R ⊙ V.

        Args:
            text: T, one row a row of the encoder. Shape: (S, L, H).
            image: V of each source. Shape: (B, E, V, H).
            score: r of each, None for the whole image. Shape: (B, E).
            encode: the encoder, or one that also looks at what it does.
        """
        if score is not None:
            share = self.propagation(score)[..., None, None]  # R
            image = image._replace(values=share * image.values)  # R ⊙ V, Eq. 3
        rows = VisualTokens(*(part[batch.post_of_row] for part in side_by_side(image)))
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
        """Block embeddings b = f W^v of each source, or what stands in their place.

        Shape: (B, E, V, H).
        """
        tokens = self.evidence.by_source(batch.evidence)
        return tokens._replace(values=self.projection(tokens.values))

    def _relation_logits(self, batch: Batch, text: Tensor, image: VisualTokens) -> Tensor:
        """The first pass: only the row that speaks for each post is read, with each source alone.

        Shape: (B, E, 2).
        """
        posts, sources = image.mask.shape[:2]
        rows = batch.first_row.repeat_interleave(sources)
        each = VisualTokens(*(part.flatten(0, 1) for part in image))
        summary = self.summarise(self.encoder, text[rows], batch.subword_mask[rows], each)
        with torch.autocast(summary.device.type, enabled=False):
            logits: Tensor = self.classifier(summary.float())
        return logits.view(posts, sources, 2)


def _images_by_source(batch: Batch) -> list[PostImage]:
    """What holds the relation of each source of each post, in a row; of nothing where none is."""
    every: list[PostImage] = []
    for post in batch.posts:
        for kind in batch.evidence:
            images = kind.of_post.shape[1]
            every += [*post.images, *[PostImage()] * images][:images]
    return every
