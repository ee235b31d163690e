"""Texts beside a post as evidence: the caption of its image, what is written there, or what someone
wrote about the post; and what makes the first two: a captioner, and a finder of text.
Their sub-words are visual tokens, or a second sentence: ``[CLS] T [SEP] E [SEP]``."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import AliasChoices, Field
from torch import Tensor

from rpbert.config.model import Kinds
from rpbert.data.collate import pad
from rpbert.data.images import load_image, load_small, normalise_batch
from rpbert.errors import InputError, counted
from rpbert.evidence.base import (
    Evidence,
    KindSettings,
    Reader,
    Reading,
    Source,
    TextTable,
    whole_image,
)
from rpbert.evidence.networks import CLIP, load_network, published_preprocessing
from rpbert.types import EvidenceInput, Post, PostImage, VisualTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rpbert.data.images import Preprocessing


_ENTITIES = re.compile(r"named entit(y|ies)\s*:.*?(?=reasoning\s*:|$)", re.IGNORECASE | re.DOTALL)


class TextSettings(KindSettings):
    """A text, sub-word by sub-word."""

    is_text: ClassVar[bool] = True

    read_as: Literal["visual_tokens", "second_sentence"] = Field("visual_tokens", alias="as")
    """Without order, at one position, as blocks are; or, for a text encoder that reads it behind
    the post, as the second sentence of a pair, with the positions and segments of one."""
    max_tokens: int = Field(
        64, ge=1, validation_alias=AliasChoices("max_tokens", "max_length", "longest")
    )
    """Sub-words that are read, with the special tokens of a second sentence; a machine caption has
    some 15. Of a longer text the part that lists named entities goes first."""

    @property
    def behind_text(self) -> int:
        """See `KindSettings.behind_text`."""
        return self.max_tokens if self.read_as == "second_sentence" else 0

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """The embeddings of the sub-words."""
        return Texts(table(), self)


class CaptionSettings(TextSettings):
    """The caption of an image."""

    source: ClassVar[str] = "caption"


class OcrSettings(TextSettings):
    """What is written in an image."""

    source: ClassVar[str] = "image_text"


class KnowledgeSettings(TextSettings):
    """What someone or something wrote about a post."""

    source: ClassVar[str] = "knowledge"
    max_tokens: int = Field(128, ge=1)


class Texts(Evidence):
    """The sub-words of a text, each by its embedding; a box is the whole image. The table belongs
    to what reads the post, so that a word means the same in both."""

    is_text = True

    def __init__(self, table: TextTable, settings: TextSettings) -> None:
        super().__init__()
        self.embed, self.width, self.in_text_space = table
        self.settings = settings

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        mask, places = found.mask, None
        if self.settings.behind_text:
            places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        return VisualTokens(self.embed(found.values), mask, whole_image(mask), places=places)

    def reader(self, reading: Reading) -> TextReader:
        """Ids of the sub-words, or of words."""
        subwords = reading.subwords
        around: tuple[Sequence[int], Sequence[int]] = (), ()
        if self.in_text_space and self.settings.behind_text and subwords:
            around = subwords.around_second
        encode = subwords.text if self.in_text_space and subwords else reading.words
        return TextReader(encode, self.settings, around)


class TextReader(Reader):
    """Texts as ids, at most `max_tokens`; `around` are those before and after each."""

    remembered, short = 20_000, 2_000  # texts whose ids are kept, of so many characters at most

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        settings: TextSettings,
        around: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> None:
        self.around, self.room = around, settings.max_tokens - sum(map(len, around))
        self.made_from = settings.made_from
        self.encode, self._known = encode, lru_cache(self.remembered)(self._read)

    def ids(self, text: str) -> tuple[int, ...]:
        """What is read of a text; nothing of one without any sub-word."""
        return (self._known if len(text) <= self.short else self._read)(text)[0]

    def _read(self, text: str) -> tuple[tuple[int, ...], int]:
        """What is read of a text, and how many sub-words it has."""
        before, after = self.around
        ids = self.encode(_entities_first(text))
        return (*before, *ids[: self.room], *after) if ids else (), len(ids)

    def has(self, image: PostImage) -> bool:
        """Whether it has a text."""
        return bool(getattr(image, self.made_from))

    def keys(self, images: Sequence[PostImage]) -> list[str | None]:
        """The text of each image."""
        return [getattr(image, self.made_from) or None for image in images]

    def lengths(self, posts: Sequence[Post]) -> list[int]:
        """Ids of the texts that posts come with."""
        return [sum(len(self.ids(text)) for text in self._given([post])) for post in posts]

    def note(self, posts: Sequence[Post]) -> str:
        """How much of the texts of posts is cut."""
        sizes = [self._read(text)[1] for text in self._given(posts)]
        longer = [size - self.room for size in sizes if size > self.room]
        few = (
            f"{len(longer):,} of {counted(len(sizes), 'text')} have more than {self.room:,} tokens"
        )
        cut = f"{sum(longer):,} of {sum(sizes):,} tokens are left out"
        return f"{self.made_from.replace('_', ' ')}: {few}; {cut}" if longer else ""

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """Ids; a text without any sub-word is no evidence."""
        return {key: self.ids(str(key)) or "none" for key in wanted}

    def pack(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, None]:
        """Ids, padded."""
        mask = pad([[1] * len(ids) for ids in pieces], filler=0).bool()
        return pad(pieces), mask, None

    def _given(self, posts: Sequence[Post]) -> list[str]:
        every = (getattr(image, self.made_from) for post in posts for image in post.images)
        return [text for text in every if text]


def _entities_first(text: str) -> str:
    """The text with the part that lists named entities, up to the reasoning, at its beginning."""
    found = _ENTITIES.search(text)
    if found is None or not found.start():
        return text
    return f"{found[0]} {text[: found.start()]}{text[found.end() :]}"


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
        """Of each image; nothing of one that is unreadable."""
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
        """Of each image; nothing of one that is unreadable."""
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
