"""What every system is and returns, and the bases of those that end in a biLSTM-CRF."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn

from rpbert.config.model import EncoderSettings, Settings, TaggerSettings
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Evidence
from rpbert.models.build import Builder
from rpbert.modules.crf import LinearChainCRF
from rpbert.modules.encoder import SubwordEncoder
from rpbert.types import Batch


def _refuse(value: Any) -> Any:
    if value is not None:
        raise ValueError("a value", "nothing: the system does not read it")
    return value


class SystemSettings(Settings):
    """What every system has; one that reads `encoder` or `evidence` redeclares it."""

    system: str
    tagger: Settings
    """What reads the words and tags them."""
    encoder: Annotated[EncoderSettings | None, BeforeValidator(_refuse)] = None
    evidence: Annotated[EvidenceSettings | None, BeforeValidator(_refuse)] = None


class BiLstmSettings(SystemSettings):
    """A system that ends in the biLSTM-CRF."""

    tagger: TaggerSettings = TaggerSettings()


class FusionOptions(BiLstmSettings):
    """A biLSTM-CRF and what it sees of an image."""

    evidence: EvidenceSettings


@dataclass(slots=True)
class TaggerOutput:
    """What a system computes of a batch; None is what it does not."""

    emissions: Tensor | None  # (B, W, K), score of every tag at every word
    relation_score: Tensor | None  # (B,), r (Eq. 2), 0 where a post has no usable image
    losses: Tensor | None  # (B,), Task#2's: -log p of the gold tags (Eq. 9), and what is added
    source_scores: Tensor | None = None  # (B, E), r of each source, 0 where none; highest is r


class System(nn.Module):
    """What every system of the registry is: it maps ``Batch -> TaggerOutput`` in `forward`.
    It is constructed of its `Options` and a `Builder`: ``Kind(options, builder)``."""

    Options: ClassVar[type[SystemSettings]]  # the settings it reads
    tags_words: ClassVar[bool] = True
    """Whether Task#2 trains it; if not, it only gives the relation."""
    has_relation: bool = False  # whether Task#1 trains it
    reads_relation: bool = False
    """Whether it is given the relation that posts come with, as an oracle is."""

    encoder: SubwordEncoder | None  # θ_RpBERT
    evidence: Evidence | None  # image to visual tokens (θ_ResNet)
    projection: nn.Module | None  # W^v, visual tokens to the width of the text
    classifier: nn.Module | None  # of the relation (θ_FCs)

    def __init__(self) -> None:
        super().__init__()
        # No `register_module`: it would settle the order of the parameters.
        self.encoder = self.evidence = self.projection = self.classifier = None

    def relation_logits(self, batch: Batch) -> Tensor:
        """Task#1: logits of (image does not add, image adds). Shape: (B, 2)."""
        raise NotImplementedError

    @property
    def crf(self) -> LinearChainCRF:
        """The CRF that decodes the emissions."""
        raise NotImplementedError

    @property
    def initial_weights(self) -> str:
        """Where the weights of a new system's encoder come from, in words."""
        return self.encoder.initial_weights if self.encoder else "random"

    def anneal(self, progress: float) -> None:
        """Set what changes over training by how far it has come, from 0 to 1."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter by its group of Algorithm 1, in the order of `parameters`.
        ``relation`` is θ_FCs, ``head`` what else is Task#2's alone (embeddings, θ_biLSTM, θ_CRF);
        ``encoder`` (θ_RpBERT), ``projection`` (W^v, and what starts at random in the encoder) and
        ``visual`` (θ_ResNet) learn in both tasks."""
        modules: list[tuple[str, nn.Module | None]] = [
            ("encoder", self.encoder),
            ("visual", self.evidence),
            ("projection", self.projection),
            ("relation", self.classifier),
        ]
        if self.evidence is not None:
            modules += [("projection", new) for new in self.evidence.new_modules()]
        group_of = {p: group for group, m in modules if m is not None for p in m.parameters()}
        if self.encoder is not None:
            group_of |= dict.fromkeys(self.encoder.new_parameters(), "projection")
        groups: dict[str, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault(group_of.get(parameter, "head"), []).append(parameter)
        return groups

    def freeze(self, groups: Collection[str]) -> None:
        """Keep the parameters of some groups, and the statistics gathered in training, fixed."""
        for group, parameters in self.parameter_groups().items():
            if group in groups:
                for parameter in parameters:
                    parameter.requires_grad_(False)
        if self.evidence is not None and "visual" in groups:
            self.evidence.freeze()

    def output(
        self, batch: Batch, emissions: Tensor, relation_score: Tensor | None = None
    ) -> TaggerOutput:
        """Emissions with their loss where the batch has gold tags (Eq. 9)."""
        losses = None
        if batch.tags is not None:
            losses = -self.crf.log_likelihood(emissions, batch.tags, batch.word_mask)
        return TaggerOutput(emissions, relation_score, losses)


class BiLstmSystem(System):
    """A system of embeddings and a biLSTM-CRF, and what it adds to them.
    Most give `tag` one vector a word; one that joins something to h_t goes from `hidden` to
    `score`. All of it stays in float32 under autocast: it is small and its sums are long. `reads`
    is the width of the biLSTM's input (default: of e_k), `tagged` of what is tagged (of h_t)."""

    def __init__(
        self, builder: Builder, reads: int | None = None, tagged: int | None = None
    ) -> None:
        super().__init__()
        self.embeddings = builder.embeddings
        self.tagger = builder.tagger(reads, tagged)

    @property
    def crf(self) -> LinearChainCRF:
        """The CRF after the biLSTM."""
        return self.tagger.crf

    def tag(
        self, batch: Batch, extra: Tensor | None = None, relation_score: Tensor | None = None
    ) -> TaggerOutput:
        """Tag words by ``[e_k; extra_k]`` (Task#2), such as e_k^RpBERT; r is passed through.
        Shape of `extra`: (B, W, H)."""
        with in_float32(batch):
            words = self.embeddings(batch)
            if extra is not None:
                words = torch.cat([words, extra.float()], dim=-1)
            return self.score(batch, self.tagger.read(words, batch.word_mask), relation_score)

    def hidden(self, batch: Batch) -> Tensor:
        """h_t, the biLSTM's reading of e_k. Shape: (B, W, 2 * hidden)."""
        with in_float32(batch):
            return self.tagger.read(self.embeddings(batch), batch.word_mask)

    def score(
        self, batch: Batch, hidden: Tensor, relation_score: Tensor | None = None
    ) -> TaggerOutput:
        """Tag words by h_t, or h_t joined with the image. Shape of `hidden`: (B, W, F)."""
        with in_float32(batch):
            return self.output(batch, self.tagger.score(hidden.float()), relation_score)


class FusionSystem(BiLstmSystem):
    """A biLSTM-CRF without a text encoder, with which an image is fused.
    `width` is that of projected visual tokens."""

    Options = FusionOptions
    evidence: Evidence
    projection: nn.Module

    def __init__(
        self,
        options: FusionOptions,
        builder: Builder,
        width: int,
        reads: int | None = None,
        tagged: int | None = None,
    ) -> None:
        super().__init__(builder, reads, tagged)
        self.evidence = builder.evidence(options.evidence)
        self.projection = builder.projection(self.evidence, width)


def in_float32(batch: Batch) -> torch.autocast:
    """A context in which autocast casts nothing."""
    return torch.autocast(batch.word_mask.device.type, enabled=False)
