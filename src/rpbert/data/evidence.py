"""What a system sees of a post's image, read and packed: pixels, regions or a caption.

A reader gives each post its evidence or none, and what several posts of a batch share stands in
it once. Which reader a model has, its evidence says (`rpbert.modules.evidence`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import torch

from rpbert.data import EvidenceInput, ImageStatus, Post
from rpbert.data.images import LoadedImage, fingerprint, load_image, normalise_batch
from rpbert.data.packing import pad
from rpbert.data.regions import Regions, StoredRegions
from rpbert.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    Source: TypeAlias = Path | bytes | Image | None

Piece = TypeVar("Piece")
Read: TypeAlias = tuple[EvidenceInput, tuple[ImageStatus, ...]]


class EvidenceReader(Protocol):
    """Reads the evidence of posts.

    Attributes:
        wanted: what it looks for in a post, for messages.
    """

    wanted: str

    def has(self, post: Post) -> bool:
        """Whether a post comes with such evidence, readable or not."""
        ...

    def read(self, posts: Sequence[Post]) -> Read:
        """The evidence of posts, and what became of each post's."""
        ...


class NoEvidence:
    """For text-only systems: no post has any, and all have status ``none``."""

    wanted = "nothing but the text"

    def has(self, post: Post) -> bool:
        """Never."""
        return False

    def read(self, posts: Sequence[Post]) -> Read:
        """Nothing."""
        nothing = torch.zeros(0, 0, dtype=torch.bool)
        nowhere = torch.full((len(posts),), -1, dtype=torch.long)
        status: list[ImageStatus] = ["none"] * len(posts)
        return EvidenceInput(torch.zeros(0, 0), nothing, None, nowhere), tuple(status)


class ImageReader:
    """Images as pixels; one that is missing or cannot be decoded is no evidence."""

    wanted = "image"

    def __init__(self, images: ImageStore) -> None:
        self.images = images

    def has(self, post: Post) -> bool:
        """Whether it names an image."""
        return post.image is not None

    def read(self, posts: Sequence[Post]) -> Read:
        """Pixels of the distinct images."""
        distinct: _Distinct[np.ndarray] = _Distinct()
        status: list[ImageStatus] = []
        for index, (key, image) in enumerate(self.images.load([post.image for post in posts])):
            status.append(image.status)
            distinct.add(key or f"post {index}", image.pixels)
        pixels = normalise_batch(distinct.pieces, self.images.size)
        mask = torch.ones(len(pixels), 1, dtype=torch.bool)
        return EvidenceInput(pixels, mask, None, distinct.of_post()), tuple(status)


class RegionReader:
    """Regions that a detector found beforehand.

    Args:
        width: d_v, the size of a feature that the model takes.
    """

    wanted = "regions"

    def __init__(self, width: int) -> None:
        self.width = width

    def has(self, post: Post) -> bool:
        """Whether it comes with regions."""
        return post.regions is not None

    def read(self, posts: Sequence[Post]) -> Read:
        """Features and boxes of the distinct sets of regions.

        Raises:
            InputError: regions that are malformed or of another width.
        """
        distinct: _Distinct[Regions] = _Distinct()
        for post in posts:
            source = post.regions
            if source is None or distinct.known(source):
                distinct.add(source, None)
                continue
            regions = source.load() if isinstance(source, StoredRegions) else source
            if regions.features.shape[1] != self.width:
                found = f"regions with {regions.features.shape[1]} features"
                raise InputError(post.origin or post.id, found, f"{self.width}, as the model takes")
            distinct.add(source, regions if len(regions.boxes) else None)
        longest = max((len(piece.boxes) for piece in distinct.pieces), default=0)
        count = len(distinct.pieces)
        values = torch.zeros(count, longest, self.width)
        boxes = torch.zeros(count, longest, 4)
        mask = torch.zeros(count, longest, dtype=torch.bool)
        for row, piece in enumerate(distinct.pieces):
            real = len(piece.boxes)
            values[row, :real] = torch.from_numpy(piece.features)
            boxes[row, :real] = torch.from_numpy(piece.boxes)
            mask[row, :real] = True
        return EvidenceInput(values, mask, boxes, distinct.of_post()), distinct.status()


class CaptionReader:
    """Captions as ids.

    Args:
        encode: a caption as the ids of its pieces.
        longest: most pieces that are read of a caption.
    """

    wanted = "caption"

    def __init__(self, encode: Callable[[str], Sequence[int]], longest: int) -> None:
        self.encode = encode
        self.longest = longest

    def has(self, post: Post) -> bool:
        """Whether it has a caption."""
        return bool(post.caption)

    def read(self, posts: Sequence[Post]) -> Read:
        """Ids of the distinct captions; a post without any piece has none."""
        distinct: _Distinct[Sequence[int]] = _Distinct()
        for post in posts:
            caption = post.caption or None
            if caption is None or distinct.known(caption):
                distinct.add(caption, None)
                continue
            distinct.add(caption, self.encode(caption)[: self.longest] or None)
        lengths = torch.tensor([len(ids) for ids in distinct.pieces], dtype=torch.long)
        values = pad(distinct.pieces)
        mask = torch.arange(values.shape[1])[None, :] < lengths[:, None]
        return EvidenceInput(values, mask, None, distinct.of_post()), distinct.status()


class _Distinct(Generic[Piece]):
    """Pieces of evidence by identity, and the one that each post has."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._rows: dict[Hashable, int] = {}
        self._of_post: list[int] = []

    def known(self, key: Hashable) -> bool:
        """Whether a piece of that identity is already there."""
        return key in self._rows

    def add(self, key: Hashable, piece: Piece | None) -> None:
        """Note the next post's piece; None is one that is known already, or no evidence."""
        if piece is not None and key not in self._rows:
            self._rows[key] = len(self.pieces)
            self.pieces.append(piece)
        self._of_post.append(self._rows.get(key, -1))

    def of_post(self) -> torch.Tensor:
        """Row of each post's piece, -1 where it has none. Shape: (B,)."""
        return torch.tensor(self._of_post, dtype=torch.long)

    def status(self) -> tuple[ImageStatus, ...]:
        """``used`` or ``none``."""
        return tuple("none" if row < 0 else "used" for row in self._of_post)


class ImageStore:
    """Decodes images, and keeps the last ones within a budget of bytes.

    Training sees every image once per task and epoch; decoding it once is enough where it fits.
    """

    def __init__(self, size: int, budget: int) -> None:
        self.size = size
        self.budget = budget
        self._held = 0
        self._kept: OrderedDict[str, LoadedImage] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def load(self, sources: Sequence[Source]) -> list[tuple[str | None, LoadedImage]]:
        """Each image's identity, None where there is none to identify, and the decoded image.

        What several share is decoded once, different ones side by side: decoders let other
        threads run.
        """
        keys = [fingerprint(source) for source in sources]
        wanted = {key: source for key, source in zip(keys, sources, strict=True) if key}
        loaded: dict[str | None, LoadedImage] = {None: LoadedImage("none")}
        for key in wanted:
            if key in self._kept:
                self._kept.move_to_end(key)
                loaded[key] = self._kept[key]
        missing = {key: source for key, source in wanted.items() if key not in loaded}
        for (key, source), image in zip(missing.items(), self._decoded(missing), strict=True):
            loaded[key] = image
            if isinstance(source, Path):  # a PIL image may change or be freed: never kept
                self._keep(key, image)
        return [(key, loaded[key]) for key in keys]

    def _decoded(self, sources: Mapping[str, Source]) -> Iterable[LoadedImage]:
        if len(sources) < 2:
            return [load_image(source, self.size) for source in sources.values()]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(torch.get_num_threads(), "decoder")
        return self._pool.map(load_image, sources.values(), repeat(self.size))

    def _keep(self, key: str, image: LoadedImage) -> None:
        self._kept[key] = image
        self._held += _bytes(image)
        while self._held > self.budget:
            _, dropped = self._kept.popitem(last=False)
            self._held -= _bytes(dropped)


def _bytes(image: LoadedImage) -> int:
    overhead = 1024  # the entry itself, so that failures do not pile up either
    return overhead + (0 if image.pixels is None else int(image.pixels.nbytes))
