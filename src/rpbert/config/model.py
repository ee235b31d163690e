"""The base of all settings, and those of encoders and taggers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    model_serializer,
    model_validator,
)


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

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


class Kinds(Settings):
    """Kinds of something: a name (``none`` for no kind), or ``{kind: settings}``."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {} if given == "none" else {given: None}
        if isinstance(given, dict):
            given = {kind: {} if value is None else value for kind, value in given.items()}
        return given

    @model_serializer
    def _as_mapping(self) -> Any:
        return self.kinds or "none"

    @property
    def kinds(self) -> dict[str, Any]:
        """Those that are given."""
        return {kind: settings for kind, settings in self if settings is not None}


# Saved settings are read again from another folder, so a path is kept from the root on.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.abspath(path)))]  # noqa: PTH100


class EncoderSettings(Settings):
    """The encoder: a published one by name or folder, or a shape with random weights."""

    pretrained: str | None = None
    """Hub name or folder of an encoder with its tokenizer, or RUN for that of a trained model."""
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
        exactly_one(self, "pretrained", "shape")
        if self.pretrained is not None:
            exactly_one(self, "pretrained", "vocabulary")
        return self


class TextEncoderSettings(EncoderSettings):
    """The text encoder, of any family; a `shape` of another than BERT names its ``model_type``."""

    former: ClassVar[Mapping[str, Any]] = {"summed_layers": 1}

    max_length: int = Field(512, ge=16, validation_alias=AliasChoices("max_length", "longest"))
    """Most sub-words that are read at once; a longer post is read in windows that overlap."""
    frozen_layers: int | None = Field(None, ge=0)
    """The embeddings and so many of the lowest layers keep their weights; None: all learn."""


class TaggerSettings(Settings):
    """Word and character embeddings, and the biLSTM that reads them (Table 2)."""

    former: ClassVar[Mapping[str, Any]] = {"iob2_decoding": True}

    word_dimension: int = Field(300, ge=1)
    """Width of the word vectors; with a file, the file's width."""
    word_vectors: AbsolutePath | None = None
    """A fastText ``.vec`` file; without one the vectors are learnt."""
    kept_vectors: int = Field(20_000, ge=0)
    """The first, most frequent words of the file, whose vectors a model keeps for later posts."""
    character_dimension: int = Field(25, ge=1)
    """Character embedding, and hidden size per direction of the character biLSTM."""
    lstm_hidden: int = Field(256, ge=1)
    """Hidden size per direction."""
    lstm_layers: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)


def exactly_one(settings: Settings, first: str, second: str) -> None:
    """See that one of two keys is given, for a validator."""
    if (getattr(settings, first) is None) == (getattr(settings, second) is None):
        raise ValueError("both or neither", f"exactly one of {first} and {second}")


def at_most_one(settings: Settings, *names: str) -> None:
    """See that no two of these keys are given, for a validator."""
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) > 1:
        raise ValueError(" and ".join(given), f"at most one of {', '.join(names)}")
