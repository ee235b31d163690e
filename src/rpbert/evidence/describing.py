"""Words for images on the fly: what a captioner says of them, and the text found in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from rpbert.data.images import fingerprint, load_small
from rpbert.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    Source: TypeAlias = Path | bytes | Image | None


class Describer(Protocol):
    """Says something of images in words."""

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """A text for each image; empty where it is unreadable or there is nothing to say."""


class Remembered:
    """A describer that is asked once for each image; the last ones it was asked for are kept.

    Args:
        describe: what is asked.
        kept: how many texts are kept.
    """

    def __init__(self, describe: Describer, kept: int = 100_000) -> None:
        self.describe = describe
        self.kept = kept
        self._known: OrderedDict[str, str] = OrderedDict()

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """As `Describer` has it."""
        keys = [fingerprint(image) for image in images]
        wanted = {key: image for key, image in zip(keys, images, strict=True) if key}
        found = {key: self._known[key] for key in wanted if key in self._known}
        new = [key for key in wanted if key not in found]
        if new:
            texts = self.describe([wanted[key] for key in new])
            found.update(zip(new, texts, strict=True))
        for key, text in found.items():
            if not key.startswith("object:"):  # a PIL image may change or be freed
                self._known[key] = text
                self._known.move_to_end(key)
        while len(self._known) > self.kept:
            self._known.popitem(last=False)
        return [found[key] if key else "" for key in keys]


class TextFinder:
    """Text found in images by RapidOCR (extra ``ocr``), line after line.

    Raises:
        InputError: it is not installed.
    """

    side = 1280
    """Larger images are shrunk to this many pixels along their longer side."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            hint = "pip install 'rpbert[ocr]'"
            raise InputError("text in images", "no RapidOCR", "the extra", hint) from None
        self._engine = RapidOCR(params={"Global.log_level": "critical"})

    def __call__(self, images: Sequence[Source]) -> list[str]:
        """As `Describer` has it."""
        return [self._read(image) for image in images]

    def _read(self, image: Source) -> str:
        pixels = load_small(image, self.side).pixels
        if pixels is None:
            return ""
        # It takes blue, green, red, as OpenCV does.
        found = self._engine(np.ascontiguousarray(pixels[:, :, ::-1]))
        return " ".join(found.txts or ())
