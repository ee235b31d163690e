"""What a system sees of a post's image, read and packed: pixels, regions or a caption.

A reader gives each post its evidence or none, and what several posts of a batch share stands in
it once. Which reader a model has, its evidence says (`rpbert.evidence.encoders`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import torch

from rpbert.data.collate import EvidenceReader, pad
from rpbert.data.images import (
    LoadedImage,
    Preprocessing,
    fingerprint,
    load_image,
    load_regions,
    normalise_batch,
)
from rpbert.errors import InputError
from rpbert.evidence.describing import Describer
from rpbert.types import EvidenceInput, ImageStatus, Post, PostImage, Regions, StoredRegions

if TYPE_CHECKING:
    from PIL.Image import Image

    Source: TypeAlias = Path | bytes | Image | None

Piece = TypeVar("Piece")
Read: TypeAlias = tuple[tuple[EvidenceInput, ...], tuple[ImageStatus, ...]]
ORDER: tuple[ImageStatus, ...] = ("none", "missing", "unreadable", "used")
"""Statuses of images, the best one last."""


class NoEvidence:
    """For text-only systems: no post has any, and all have status ``none``."""

    wanted = kind = ""
    preprocessing = None

    def has(self, post: Post) -> bool:
        """Never."""
        return False

    def split_by_source(self, post: Post) -> list[Post]:
        """The post."""
        return [post]

    def read(self, posts: Sequence[Post]) -> Read:
        """Nothing."""
        status: list[ImageStatus] = ["none"] * len(posts)
        return (), tuple(status)


class ImageReader:
    """Images as pixels; one that is missing or cannot be decoded is no evidence."""

    wanted = kind = "image"

    def __init__(self, images: ImageStore) -> None:
        self.images = images

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared."""
        return self.images.preprocessing

    def has(self, post: Post) -> bool:
        """Whether it names an image."""
        return any(image.image is not None for image in post.images)

    def split_by_source(self, post: Post) -> list[Post]:
        """The post with each of its images alone."""
        return post.split_by_image()

    def read(self, posts: Sequence[Post]) -> Read:
        """Pixels of the distinct images."""
        distinct: _Distinct[np.ndarray] = _Distinct()
        status: list[ImageStatus] = []
        sources = [image.image for post in posts for image in post.images]
        for index, (key, image) in enumerate(self.images.load(sources)):
            status.append(image.status)
            distinct.add(key or f"image {index}", image.pixels)
        pixels = normalise_batch(distinct.pieces, self.images.preprocessing)
        mask = torch.ones(len(pixels), 1, dtype=torch.bool)
        found = EvidenceInput(pixels, mask, None, distinct.of_post(posts))
        return (found,), best(status, posts)


class RegionReader:
    """Regions that a detector found beforehand.

    Args:
        width: d_v, the size of a feature that the model takes.
    """

    wanted = kind = "regions"
    preprocessing = None

    def __init__(self, width: int) -> None:
        self.width = width

    def has(self, post: Post) -> bool:
        """Whether it comes with regions."""
        return any(image.regions is not None for image in post.images)

    def split_by_source(self, post: Post) -> list[Post]:
        """The post with the regions of each of its images alone."""
        return post.split_by_image()

    def read(self, posts: Sequence[Post]) -> Read:
        """Features and boxes of the distinct sets of regions.

        Raises:
            InputError: regions that are malformed or of another width.
        """
        distinct: _Distinct[Regions] = _Distinct()
        for post, shown in _every(posts):
            source = shown.regions
            if source is None or distinct.known(source):
                distinct.add(source, None)
                continue
            regions = load_regions(source) if isinstance(source, StoredRegions) else source
            if regions.features.shape[1] != self.width:
                width = f"regions with {regions.features.shape[1]} features"
                raise InputError(post.origin or post.id, width, f"{self.width}, as the model takes")
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
        found = EvidenceInput(values, mask, boxes, distinct.of_post(posts))
        return (found,), distinct.status(posts)


class CaptionReader:
    """Captions as ids, or what is written in images.

    Args:
        encode: a caption as the ids of its pieces.
        longest: most pieces that are read of a caption.
        kind: the attribute of a post that holds it.
        describe: makes the captions of images that come without; None: they have none.
    """

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        longest: int,
        kind: Literal["caption", "image_text"] = "caption",
        describe: Describer | None = None,
    ) -> None:
        self.encode = encode
        self.longest = longest
        self.kind: str = kind
        self.describe = describe
        self.wanted = {"caption": "caption", "image_text": "text in the image"}[kind]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """None: what looks at images to describe them prepares them itself."""
        return None

    def has(self, post: Post) -> bool:
        """Whether it has a caption, or an image that one is made of."""
        described = self.describe is not None
        return any(
            getattr(shown, self.kind) or (described and shown.image is not None)
            for shown in post.images
        )

    def split_by_source(self, post: Post) -> list[Post]:
        """The post with each of its captions alone."""
        every = post.split_by_image()
        texts = zip(every, self._texts(every), strict=True)
        return [alone.with_(**{self.kind: text}) for alone, text in texts]

    def read(self, posts: Sequence[Post]) -> Read:
        """Ids of the distinct captions; a post without any piece has none."""
        distinct: _Distinct[Sequence[int]] = _Distinct()
        for caption in self._texts(posts):
            if caption is None or distinct.known(caption):
                distinct.add(caption, None)
                continue
            distinct.add(caption, self.encode(caption)[: self.longest] or None)
        lengths = torch.tensor([len(ids) for ids in distinct.pieces], dtype=torch.long)
        values = pad(distinct.pieces)
        mask = torch.arange(values.shape[1])[None, :] < lengths[:, None]
        found = EvidenceInput(values, mask, None, distinct.of_post(posts))
        return (found,), distinct.status(posts)

    def _texts(self, posts: Sequence[Post]) -> list[str | None]:
        """The caption of each image of each post, in a row."""
        every = [image for _, image in _every(posts)]
        texts: list[str | None] = [getattr(shown, self.kind) or None for shown in every]
        asked = [i for i, shown in enumerate(every) if texts[i] is None and shown.image is not None]
        if self.describe is not None and asked:
            for i, text in zip(asked, self.describe([every[i].image for i in asked]), strict=True):
                texts[i] = text or None
        return texts


class CombinedReader:
    """Several kinds of evidence of each post.

    Args:
        readers: of each kind, in the order of the model's.
    """

    def __init__(self, readers: Sequence[EvidenceReader]) -> None:
        self.readers = readers
        self.kind = ""  # none alone
        self.wanted = " or ".join(reader.wanted for reader in readers)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How the kind with the largest images has them."""
        looking = [reader.preprocessing for reader in self.readers if reader.preprocessing]
        return max(looking, key=lambda preprocessing: preprocessing.size, default=None)

    def has(self, post: Post) -> bool:
        """Whether it comes with any of the kinds."""
        return any(reader.has(post) for reader in self.readers)

    def split_by_source(self, post: Post) -> list[Post]:
        """The post with each image and each kind alone, as far as it has them."""
        every = [
            _only(alone, reader.kind)
            for reader in self.readers
            for alone in reader.split_by_source(post)
        ]
        return [alone for alone in every if self.has(alone)]

    def read(self, posts: Sequence[Post]) -> Read:
        """All kinds, and the best status of each post's."""
        inputs, states = zip(*(reader.read(posts) for reader in self.readers), strict=True)
        status = tuple(max(kinds, key=ORDER.index) for kinds in zip(*states, strict=True))
        return tuple(kind for (kind,) in inputs), status


def _only(post: Post, kind: str) -> Post:
    """A post of one image, reduced to one of the image's attributes; its relation stays."""
    image = post.images[0]
    kept = PostImage(relation=image.relation)
    return post.with_(images=(replace(kept, **{kind: getattr(image, kind)}),))


def best(each: Sequence[ImageStatus], posts: Sequence[Post]) -> tuple[ImageStatus, ...]:
    """Of the images of each post, all in a row, the best status of a post's."""
    states = iter(each)
    return tuple(max((next(states) for _ in post.images), key=ORDER.index) for post in posts)


def _every(posts: Sequence[Post]) -> Iterator[tuple[Post, PostImage]]:
    """Every image of every post, with its post."""
    return ((post, shown) for post in posts for shown in post.images)


class _Distinct(Generic[Piece]):
    """Pieces of evidence by identity, and the one of each image of each post."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._rows: dict[Hashable, int] = {}
        self._of_image: list[int] = []

    def known(self, key: Hashable) -> bool:
        """Whether a piece of that identity is already there."""
        return key in self._rows

    def add(self, key: Hashable, piece: Piece | None) -> None:
        """Note the next image's piece; None is one that is known already, or no evidence."""
        if piece is not None and key not in self._rows:
            self._rows[key] = len(self.pieces)
            self.pieces.append(piece)
        self._of_image.append(self._rows.get(key, -1))

    def of_post(self, posts: Sequence[Post]) -> torch.Tensor:
        """Row of the piece of each image of each post, -1 where there is none. Shape: (B, M)."""
        rows = iter(self._of_image)
        return pad([[next(rows) for _ in post.images] for post in posts], filler=-1)

    def status(self, posts: Sequence[Post]) -> tuple[ImageStatus, ...]:
        """``used`` or ``none``, of each post."""
        return best(["none" if row < 0 else "used" for row in self._of_image], posts)


class ImageStore:
    """Decodes images, and keeps the last ones within a budget of bytes.

    Training sees every image once per task and epoch; decoding it once is enough where it fits.
    """

    def __init__(self, preprocessing: Preprocessing, budget: int) -> None:
        self.preprocessing = preprocessing
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
        how = self.preprocessing.size, self.preprocessing.resampling
        if len(sources) < 2:
            return [load_image(source, *how) for source in sources.values()]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(torch.get_num_threads(), "decoder")
        return self._pool.map(load_image, sources.values(), *map(repeat, how))

    def _keep(self, key: str, image: LoadedImage) -> None:
        self._kept[key] = image
        self._held += _bytes(image)
        while self._held > self.budget:
            _, dropped = self._kept.popitem(last=False)
            self._held -= _bytes(dropped)


def _bytes(image: LoadedImage) -> int:
    overhead = 1024  # the entry itself, so that failures do not pile up either
    return overhead + (0 if image.pixels is None else int(image.pixels.nbytes))
