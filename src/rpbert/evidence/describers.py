"""What puts images into words while posts are read: a captioner, and a finder of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from rpbert.data.images import fingerprint, load_image, load_small, normalise_batch
from rpbert.errors import InputError
from rpbert.evidence import EvidenceSettings
from rpbert.evidence.base import Describer, Source
from rpbert.evidence.networks import CLIP, load_network, published_preprocessing
from rpbert.storage.published import from_hub

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rpbert.data.images import Preprocessing

CAPTIONERS = {
    "blip": "BlipForConditionalGeneration",
    "git": "GitForCausalLM",
    "vision-encoder-decoder": "VisionEncoderDecoderModel",
}
"""The families known: they write a caption without being asked a question."""


def need_kind(settings: EvidenceSettings | None, kind: str, given: str) -> None:
    """Raise an InputError where a model does not read the kind that `given` is for."""
    kinds = settings.kinds if settings else {}
    if kind not in kinds:
        found = f"a model that reads {' and '.join(kinds) or 'text alone'}"
        raise InputError(given, found, f"one that reads {kind}", f"leave out {given}")


def describers(
    settings: EvidenceSettings | None, captioner: str | None, ocr: bool, device: str = "cpu"
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
