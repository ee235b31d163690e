"""Settings of a run's data: where the posts are, and what says how their images relate to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from pydantic import Field, model_serializer, model_validator

from rpbert.config.model import AbsolutePath, Settings


class RelationSource(Settings):
    """One thing that tells Task#1 how text and image relate."""

    weight: float = Field(1.0, gt=0)
    """How much a post of this source counts against those of the others."""


class LabelSource(RelationSource):
    """The relation that posts come with (TRC, ``relations.tsv``, the field ``relation``), as 0 or
    1: a probability counts as 1 above 0.5."""


class SoftSource(RelationSource):
    """A probability a post, of any model or person."""

    path: AbsolutePath | None = None
    """A file of lines id, tab, probability; None: the relation that posts come with, as it is."""


class MismatchSource(RelationSource):
    """Pairs made by exchanging images between posts: image-text matching (Chen et al. 2020, UNITER,
    section 3.2), with pairs drawn anew every epoch."""

    negatives: int = Field(1, ge=1)
    """Exchanged images a post; together they count as much as its own image does."""
    hardness: int = Field(1, ge=1)
    """Of so many posts drawn for a negative, the one of the nearest words gives its image; 1 is a
    random one. Nearest words may also mean an image that does belong."""
    matched: float = Field(1.0, gt=0, le=1)
    """Probability that a post's own image adds; below 1 where many own images do not."""


AnySource: TypeAlias = LabelSource | SoftSource | MismatchSource


class RelationSources(Settings):
    """Kinds of relation supervision: a name (``none`` for no kind), or ``{kind: settings}``."""

    labels: LabelSource | None = None
    soft: SoftSource | None = None
    mismatch: MismatchSource | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            known = [*cls.model_fields, "none"]
            if given not in known:
                raise ValueError(given, f"one of {', '.join(known)}, or several with settings")
            given = {} if given == "none" else {given: None}
        if isinstance(given, dict):
            given = {kind: {} if value is None else value for kind, value in given.items()}
        return given

    @model_serializer
    def _as_mapping(self) -> Any:
        return dict(self.kinds) or "none"

    @property
    def kinds(self) -> dict[str, AnySource]:
        """Those that are given."""
        every: dict[str, AnySource | None] = {
            "labels": self.labels,
            "soft": self.soft,
            "mismatch": self.mismatch,
        }
        return {kind: source for kind, source in every.items() if source is not None}


class DataSettings(Settings):
    """Where the posts are."""

    path: AbsolutePath
    """A data folder (or folder of JSON lines or Parquet) with train, dev and test splits."""
    relations: AbsolutePath | None = None
    """Task#1's posts (TRC or any data with relation labels); None: the labels in `path`."""
    relation_source: RelationSources | None = None
    """What Task#1 learns from: `labels`, `soft`, `mismatch`, several, or `none` (no Task#1). Not
    given: the labels if there are any, as probabilities where they are, else `mismatch`."""
    posts: int | None = Field(None, ge=1)
    """For a quick pass, most posts of each split: its first ones; None: all."""
    captioner: str | None = None
    """Hub name or folder of an image-to-text model (BLIP, GIT, ViT-GPT2) that makes the captions of
    images that come without, for `captions` as evidence."""
    ocr: bool = False
    """Whether RapidOCR (extra ``ocr``) looks for text in images that come without, for `ocr` as
    evidence."""
    lenient: bool = False
    """Leave faulty rows out and count them; else the first one ends the run."""

    @property
    def relations_read(self) -> Path | None:
        """`relations`, where a source learns from what posts came with."""
        sources = self.relation_source
        soft = sources.soft if sources else None
        asked = sources is None or sources.labels is not None or (soft and soft.path is None)
        return self.relations if asked else None
