"""Words about an image as evidence: its caption, or what is written in it; and what makes them
while posts are read: a captioner, and a finder of text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from pydantic import AliasChoices, Field
from torch import Tensor

from rpbert.config.model import Kinds
from rpbert.data.collate import pad
from rpbert.data.images import fingerprint, load_image, load_small, normalise_batch
from rpbert.errors import InputError
from rpbert.evidence.base import (
    Describer,
    Evidence,
    KindSettings,
    Reader,
    Reading,
    Source,
    TextTable,
    whole_image,
)
from rpbert.evidence.networks import CLIP, load_network, published_preprocessing
from rpbert.storage.published import from_hub
from rpbert.types import EvidenceInput, Post, PostImage, VisualTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rpbert.data.images import Preprocessing


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


CAPTIONERS = {
    "blip": "BlipForConditionalGeneration",
    "git": "GitForCausalLM",
    "vision-encoder-decoder": "VisionEncoderDecoderModel",
}
"""The families known: they write a caption without being asked a question."""


def need_kind(settings: Kinds | None, kind: str, given: str) -> None:
    """Raise an InputError where a model does not read the kind that `given` is for."""
    kinds = settings.kinds if settings else {}
    if kind not in kinds:
        found = f"a model that reads {' and '.join(kinds) or 'text alone'}"
        raise InputError(given, found, f"one that reads {kind}", f"leave out {given}")


def describers(
    settings: Kinds | None, captioner: str | None, ocr: bool, device: str = "cpu"
) -> dict[str, Describer]:
    """By attribute of `PostImage`, what makes its texts for posts that come with an image alone.
    `captioner` is a hub name or folder. Raises InputError: the model does not read that kind, or
    the captioner cannot be loaded."""
    made: dict[str, Describer] = {}
    if captioner is not None:
        need_kind(settings, "captions", "captioner")
        load = partial(Captioner.from_pretrained, captioner, device)
        made["caption"] = Remembered(from_hub("captioner", captioner, load))
    if ocr:
        need_kind(settings, "ocr", "ocr")
        made["image_text"] = Remembered(TextFinder())
    return made


class Remembered:
    """A describer that is asked once for each image, as long as `kept` texts are not exceeded."""

    def __init__(self, describe: Describer, kept: int = 100_000) -> None:
        self.describe = describe
        self.kept = kept
        self._known: dict[str, str] = {}

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """As `Describer` has it."""
        keys = [fingerprint(image) for image in images]
        wanted = {key: image for key, image in zip(keys, images, strict=True) if key}
        new = {key: image for key, image in wanted.items() if key not in self._known}
        found = {"": "", **{key: self._known[key] for key in wanted.keys() - new}}
        if new:
            found |= zip(new, self.describe([*new.values()]), strict=True)
        if len(self._known) > self.kept:
            self._known.clear()
        # A PIL image may change or be freed.
        self._known |= {k: text for k, text in found.items() if not k.startswith("object:")}
        return [found[key or ""] for key in keys]


class TextFinder:
    """Text found in images by RapidOCR, line after line; without it an InputError."""

    side = 1280  # larger images are shrunk to this many pixels along their longer side

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            hint = "pip install 'rpbert[ocr]'"
            raise InputError("text in images", "no RapidOCR", "the extra", hint) from None
        self._engine = RapidOCR(params={"Global.log_level": "critical"})

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """As `Describer` has it."""
        texts = []
        for image in images:
            pixels = load_small(image, self.side).pixels
            # It takes blue, green, red, as OpenCV does.
            found = () if pixels is None else self._engine(pixels[:, :, ::-1].copy()).txts
            texts.append(" ".join(found or ()))
        return texts


@dataclass
class Captioner:
    """Writes a caption for each image, the likeliest word after word (Li et al. 2022, BLIP; Wang et
    al. 2022, GIT)."""

    network: Any
    tokenizer: PreTrainedTokenizerBase
    preprocessing: Preprocessing
    max_length: int = 40
    batch_size: int = 8

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "cpu") -> Self:
        """A published captioner, by hub name or folder; raises as `load_network` does."""
        from transformers import AutoTokenizer

        network = load_network(CAPTIONERS, source, "captioner").eval().to(device)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        return cls(network, tokenizer, published_preprocessing(source, CLIP))

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """As `Describer` has it."""
        how = self.preprocessing.size, self.preprocessing.resampling
        pixels = [load_image(image, *how).pixels for image in images]
        read = [(index, found) for index, found in enumerate(pixels) if found is not None]
        captions = [""] * len(images)
        for start in range(0, len(read), self.batch_size):
            indices, batch = zip(*read[start : start + self.batch_size], strict=True)
            with torch.inference_mode():
                ids = self.network.generate(
                    pixel_values=normalise_batch(batch, self.preprocessing).to(self.network.device),
                    max_new_tokens=self.max_length,
                    do_sample=False,
                    num_beams=1,
                )
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                captions[index] = text.strip()
        return captions
