"""Words about an image as evidence: its caption, or what is written in it; and what makes them
while posts are read: a captioner, and a finder of text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import AliasChoices, Field
from torch import Tensor

from rpbert.data.collate import pad
from rpbert.evidence.base import (
    Describer,
    Evidence,
    KindSettings,
    Reader,
    Reading,
    TextTable,
    whole_image,
)
from rpbert.types import EvidenceInput, Post, PostImage, VisualTokens


class CaptionSettings(KindSettings):
    """The caption of an image, word piece by word piece."""

    source: ClassVar[str] = "caption"
    max_length: int = Field(64, ge=1, validation_alias=AliasChoices("max_length", "longest"))
    """Pieces that are read; a machine caption has some 15."""

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """The embeddings of the pieces."""
        return Captions(table(), self)


class OcrSettings(CaptionSettings):
    """What is written in an image, word piece by word piece."""

    source: ClassVar[str] = "image_text"


class Captions(Evidence):
    """The pieces of a text, each by its embedding, unordered like blocks; a box is the whole image.
    The table belongs to what reads the post, so that a word means the same in caption and text."""

    def __init__(self, table: TextTable, settings: CaptionSettings) -> None:
        super().__init__()
        self.embed, self.width, self.in_text_space = table
        self.settings = settings

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        return VisualTokens(self.embed(found.values), found.mask, whole_image(found.mask))

    def reader(self, reading: Reading) -> CaptionReader:
        """Ids of the pieces."""
        encode = reading.pieces if self.in_text_space else reading.words
        return CaptionReader(encode, self.settings, reading.describers.get(self.settings.made_from))


class CaptionReader(Reader):
    """Captions as ids of pieces; `describe` makes those of images that come without."""

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        settings: CaptionSettings,
        describe: Describer | None = None,
    ) -> None:
        self.encode = encode
        self.max_length = settings.max_length
        self.made_from = settings.made_from
        self.describe = describe

    def has(self, image: PostImage) -> bool:
        """Whether it has a caption, or pixels that one is made of."""
        made = self.describe is not None and image.image is not None
        return made or bool(getattr(image, self.made_from))

    def split(self, post: Post) -> list[Post]:
        """The post with each of its captions alone."""
        texts = zip(post.split_by_image(), self.keys(post.images), strict=True)
        return [alone.with_(**{self.made_from: text}) for alone, text in texts]

    def keys(self, images: Sequence[PostImage]) -> list[str | None]:
        """The caption of each image, made where it is missing."""
        texts: list[str | None] = [getattr(image, self.made_from) or None for image in images]
        asked = [i for i, image in enumerate(images) if not texts[i] and image.image is not None]
        if self.describe is not None and asked:
            made = self.describe([images[i].image for i in asked])
            for i, text in zip(asked, made, strict=True):
                texts[i] = text or None
        return texts

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """Ids; a caption without any piece is no evidence."""
        return {key: self.encode(str(key))[: self.max_length] or "none" for key in wanted}

    def pack(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, None]:
        """Ids, padded."""
        mask = pad([[1] * len(ids) for ids in pieces], filler=0).bool()
        return pad(pieces), mask, None
