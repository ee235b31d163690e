"""Images read as pixels, for every kind of evidence whose network looks at them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rpbert.data.images import LoadedImage, Preprocessing, fingerprint, load_image, normalise_batch
from rpbert.evidence.base import Evidence, Reader, Reading, Source
from rpbert.types import Post, PostImage


class SeeingEvidence(Evidence):
    """An encoder whose network looks at pixels."""

    preprocessing: Preprocessing

    def reader(self, reading: Reading) -> ImageReader:
        """Pixels."""
        return ImageReader(self.preprocessing, reading.images_kept)


class ImageReader(Reader):
    """Images as pixels; one that is missing or cannot be decoded is no evidence. Training sees
    every image once per task and epoch: `budget` bytes of the last ones are kept."""

    made_from = "image"
    preprocessing: Preprocessing

    def __init__(self, preprocessing: Preprocessing, budget: int) -> None:
        self.preprocessing = preprocessing
        self.budget = budget
        self._held = 0
        self._kept: OrderedDict[Hashable, LoadedImage] = OrderedDict()

    def keys(self, images: Sequence[PostImage]) -> Sequence[Hashable | None]:
        """The fingerprint of each image."""
        return [fingerprint(image.image) for image in images]

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """Pixels, or why there are none."""
        loaded = {key: self._kept[key] for key in wanted if key in self._kept}
        for key in loaded:
            self._kept.move_to_end(key)
        new = {key: image.image for key, (_, image) in wanted.items() if key not in loaded}
        # Decoded side by side: decoders let other threads run.
        decoded = self._pool.map(self._load, new.values())
        for (key, source), image in zip(new.items(), decoded, strict=True):
            loaded[key] = image
            if isinstance(source, Path):  # a PIL image may change or be freed: never kept
                self._kept[key] = image
                self._held += _bytes(image)
        while self._held > self.budget:
            self._held -= _bytes(self._kept.popitem(last=False)[1])
        found = {key: loaded[key] for key in wanted}
        return {k: i.status if i.pixels is None else i.pixels for k, i in found.items()}

    def pack(self, pieces: Sequence[Any]) -> tuple[Tensor, Tensor, None]:
        """Normalised pixels."""
        mask = torch.ones(len(pieces), 1, dtype=torch.bool)
        return normalise_batch(pieces, self.preprocessing), mask, None

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(torch.get_num_threads(), "decoder")

    def _load(self, source: Source) -> LoadedImage:
        return load_image(source, self.preprocessing.size, self.preprocessing.resampling)


def _bytes(image: LoadedImage) -> int:
    overhead = 1024  # the entry itself, so that failures do not pile up either
    return overhead + (0 if image.pixels is None else int(image.pixels.nbytes))
