"""Settings of a model's parts: typed, documented where they stand, unknown keys refused by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    model_serializer,
    model_validator,
)


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    former: ClassVar[Mapping[str, Any]] = {}
    """Keys of earlier versions, with the value that has become the only one."""

    @model_validator(mode="before")
    @classmethod
    def _drop_former(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for key in cls.former.keys() & given.keys():
            if given[key] != cls.former[key]:
                found = f"{key} {given[key]!a:.20}, which earlier versions had"
                raise ValueError(found, f"{cls.former[key]} or no such key")
        return {key: value for key, value in given.items() if key not in cls.former}


# Saved settings are read again from another folder, so a path is kept from the root on.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.abspath(path)))]  # noqa: PTH100


class EncoderSettings(Settings):
    """The encoder: a published one by name or folder, or a shape with random weights."""

    pretrained: str | None = None
    """Hub name or folder of an encoder with its tokenizer, such as ``bert-base-uncased``."""
    shape: dict[str, Any] | None = None
    """Fields of transformers' ``BertConfig``: random weights of that shape; ``{}`` is BERT-base."""
    vocabulary: int | None = Field(None, ge=100)
    """With `shape`: WordPiece entries learnt from the training texts, else None."""

    @model_validator(mode="before")
    @classmethod
    def _fill_vocabulary(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("shape") is not None:
            given = {"vocabulary": 8000, **given}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "pretrained", "shape")
        if self.pretrained is not None:
            _exactly_one(self, "pretrained", "vocabulary")
        return self


class TextEncoderSettings(EncoderSettings):
    """The text encoder, of any family; a `shape` of another than BERT names its ``model_type``."""

    former: ClassVar[Mapping[str, Any]] = {"summed_layers": 1}

    max_length: int = Field(512, ge=16, validation_alias=AliasChoices("max_length", "longest"))
    """Most sub-words that are read at once; a longer post is read in windows that overlap."""
    frozen_layers: int | None = Field(None, ge=0)
    """The embeddings and so many of the lowest layers keep their weights; None: all learn."""


class ImageSettings(Settings):
    """The image encoder: published by name or folder, or a shape with random weights.

    ResNet, ConvNeXt, ViT, DINOv2, CLIP and SigLIP are known. How images are prepared is as the
    network was trained, unless a setting says otherwise.
    """

    pretrained: str | None = None
    """Hub name or folder, such as ``microsoft/resnet-152`` or ``facebook/dinov2-base``."""
    shape: str | dict[str, Any] | None = None
    """A published shape (``resnet-18`` … ``resnet-152``), or fields of a configuration with its
    ``model_type``; without one they are those of ``ResNetConfig``."""
    image_size: int | None = Field(None, ge=32)
    """Images are resized to this many pixels square; a ResNet's own are 224."""
    mean: tuple[float, float, float] | None = None
    """Of red, green and blue in [0, 1]."""
    deviation: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """What values are divided by, once the mean is subtracted."""
    resampling: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] | None = None
    """Pillow's filter that resizes an image."""


class BlockSettings(ImageSettings):
    """The blocks of an image, of which the network makes 7 × 7 in the paper."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _exactly_one(self, "pretrained", "shape")
        return self


class GlobalSettings(ImageSettings):
    """One vector an image: the network's mean, or without one that of ``regions.safetensors``."""

    width: int | None = Field(None, ge=1)
    """Size of the file's features; None: as the training data has it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _at_most_one(self, "pretrained", "shape", "width")
        return self


class RegionSettings(Settings):
    """Regions of an image: those of ``regions.safetensors``, or those of a detector."""

    pretrained: str | None = None
    """Hub name or folder of a detector, such as ``hustvl/yolos-tiny``."""
    shape: dict[str, Any] | None = None
    """Fields of a detector's configuration, with its ``model_type`` (``detr`` or ``yolos``)."""
    image_size: int = Field(512, ge=32)
    """For a detector, images are resized to this many pixels square."""
    most: int = Field(36, ge=1)
    """How many regions of a detector are kept, the surest ones."""
    width: int | None = Field(None, ge=1)
    """Size of the file's features; None: as the training data has it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        _at_most_one(self, "pretrained", "shape", "width")
        return self


class CaptionSettings(Settings):
    """The caption of an image, word piece by word piece."""

    longest: int = Field(64, ge=1)
    """Pieces of a caption that are read; a machine caption has some 15."""


class OcrSettings(Settings):
    """What is written in an image, word piece by word piece."""

    longest: int = Field(64, ge=1)
    """Pieces of it that are read."""


EvidenceKind: TypeAlias = Literal["blocks", "global", "regions", "captions", "ocr"]
SourceSettings: TypeAlias = (
    BlockSettings | GlobalSettings | RegionSettings | CaptionSettings | OcrSettings
)


class EvidenceSources(Settings):
    """Kinds of evidence with their settings: a name, or a mapping ``{kind: settings}``."""

    blocks: BlockSettings | None = None
    pooled: GlobalSettings | None = Field(None, alias="global")
    regions: RegionSettings | None = None
    captions: CaptionSettings | None = None
    ocr: OcrSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {given: None}
        if isinstance(given, dict):
            given = {kind: {} if value is None else value for kind, value in given.items()}
        return given

    @model_serializer
    def _as_mapping(self) -> dict[str, Any]:
        return {kind: source for kind, source in self.kinds.items()}  # noqa: C416

    @property
    def kinds(self) -> dict[EvidenceKind, SourceSettings]:
        """Those that are given."""
        every: dict[EvidenceKind, SourceSettings | None] = {
            "blocks": self.blocks,
            "global": self.pooled,
            "regions": self.regions,
            "captions": self.captions,
            "ocr": self.ocr,
        }
        return {kind: source for kind, source in every.items() if source is not None}


class EvidenceSettings(EvidenceSources):
    """What a system sees of an image: one kind, or several where the system combines them."""

    @model_validator(mode="after")
    def _some_kind(self) -> Self:
        if not self.kinds:
            raise ValueError("no kind", f"one of {', '.join(get_args(EvidenceKind))}")
        return self

    @property
    def kind(self) -> EvidenceKind:
        """Which kind it is, the first of several."""
        return next(iter(self.kinds))

    @property
    def source(self) -> SourceSettings:
        """The settings of that kind."""
        return self.kinds[self.kind]

    def with_source(self, kind: EvidenceKind, **changes: Any) -> Self:
        """The same kinds, with some settings of one of them changed."""
        every = {name: source.model_dump() for name, source in self.kinds.items()}
        return type(self).model_validate({**every, kind: {**every[kind], **changes}})


class ReaderSettings(Settings):
    """Word and character embeddings, and the biLSTM that reads them (Table 2)."""

    word_dimension: int = Field(300, ge=1)
    """Width of the word vectors; with a file, the file's width."""
    word_vectors: AbsolutePath | None = None
    """A fastText ``.vec`` file; without one the vectors are learnt."""
    character_dimension: int = Field(25, ge=1)
    """Character embedding, and hidden size per direction of the character biLSTM."""
    lstm_hidden: int = Field(256, ge=1)
    """Hidden size per direction."""
    lstm_layers: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)


class DecodingSettings(Settings):
    """How tags are read from a CRF."""

    iob2_decoding: bool = True
    """Decode only well-formed IOB2; the training loss never knows of it."""


class TaggerSettings(ReaderSettings, DecodingSettings):
    """The biLSTM-CRF most systems end in, and the embeddings it reads (Table 2)."""


def _refuse(value: Any) -> Any:
    if value is not None:
        raise ValueError("a value", "nothing: the system does not read it")
    return value


class SystemSettings(Settings):
    """What every system has; one that reads `encoder` or `evidence` declares it anew."""

    system: str
    tagger: Settings
    """What reads the words and tags them."""
    encoder: Annotated[EncoderSettings | None, AfterValidator(_refuse)] = None
    evidence: Annotated[EvidenceSettings | None, AfterValidator(_refuse)] = None


class BiLstmSettings(SystemSettings):
    """A system that ends in the biLSTM-CRF."""

    tagger: TaggerSettings = TaggerSettings()


def _exactly_one(settings: Settings, first: str, second: str) -> None:
    if (getattr(settings, first) is None) == (getattr(settings, second) is None):
        raise ValueError("both or neither", f"exactly one of {first} and {second}")


def _at_most_one(settings: Settings, *names: str) -> None:
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) > 1:
        raise ValueError(" and ".join(given), f"at most one of {', '.join(names)}")
