"""What every kind of evidence has: its settings, a reader of posts, and an encoder.
All encoders give the same `VisualTokens`, so that a system takes any kind. What several posts of a
batch share is read and encoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.config.model import Settings
from rpbert.data.collate import TokenizerSubwords, pad
from rpbert.data.images import LoadedImage, Preprocessing, fingerprint, load_image, normalise_batch
from rpbert.types import (
    Batch,
    EvidenceInput,
    ImageStatus,
    Post,
    PostImage,
    Unreadable,
    VisualTokens,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "Path | bytes | Image | None"
ORDER: tuple[ImageStatus, ...] = ("none", "missing", "unreadable", "used")
"""Statuses of images, the best one last."""


class TextTable(NamedTuple):
    """Embeddings that texts share with the post: of the encoder's sub-words, or of words."""

    embed: Callable[[Tensor], Tensor]  # Shape: (I, V) → (I, V, width)
    width: int
    in_text_space: bool


@dataclass(frozen=True)
class Reading:
    """What the readers of a model are made with."""

    subwords: TokenizerSubwords | None  # of the text encoder
    words: Callable[[str], Sequence[int]]  # a text as ids of the tagger's words
    images_kept: int  # bytes of decoded images that are kept for when they come again


class KindSettings(Settings):
    """Settings of one kind of evidence."""

    source: ClassVar[str]
    is_text: ClassVar[bool] = False
    """Whether it is a text, whose words are learnt and embedded as those of posts are."""

    @property
    def behind_text(self) -> int:
        """Most of its tokens that have positions of their own behind the text; 0 without order."""
        return 0

    @property
    def made_from(self) -> str:
        """The attribute of `PostImage` that it is made from."""
        return self.source

    @property
    def initial_weights(self) -> str | None:
        """The name of published weights, else ``random``; None without a network."""
        return None

    def with_width(self, width: int) -> Self:
        """With the size of stored features that the training data has."""
        return self

    def build(self, key: str, table: Callable[[], TextTable]) -> Evidence:
        """The encoder; `key` names the settings in an `InputError`, `table` embeds words."""
        raise NotImplementedError


class NetworkSettings(KindSettings):
    """A kind that a network of transformers makes of pixels."""

    source: ClassVar[str] = "image"
    pretrained: str | None = None
    """Hub name or folder of a network."""
    shape: str | dict[str, Any] | None = None
    """Random weights of a shape: fields of a configuration, with its ``model_type``."""

    @property
    def initial_weights(self) -> str | None:
        """Of the network."""
        return self.pretrained or (None if self.shape is None else "random")


class Evidence(nn.Module):
    """An encoder: turns what a batch holds of images into visual tokens."""

    width: int  # size of a visual token, d_v
    in_text_space: bool = False  # whether tokens are already what the text encoder takes as input
    is_text: bool = False  # whether they are the sub-words or words of a text
    columns: int | None = None  # tokens of an image in a row of a grid; None without a grid

    def kinds(self) -> Sequence[Evidence]:
        """The encoder of each kind, in the order in which the batch holds them."""
        return [self]

    def forward(self, batch: Batch) -> VisualTokens:
        """The tokens of each post; V is 0 where no post of the batch has any."""
        return side_by_side(self.by_source(batch.evidence))

    def by_source(self, evidence: Sequence[EvidenceInput]) -> VisualTokens:
        """The tokens of each image of each post apart. Shape: (B, E, V, d_v)."""
        (found,) = evidence
        if found.mask.shape[0]:
            return gather_tokens(self.encode(found), found.of_post)
        none = found.mask.new_zeros(0, 0)  # no network runs
        values = none[..., None].float().expand(0, 0, self.width)
        return gather_tokens(VisualTokens(values, none, whole_image(none)), found.of_post)

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """The tokens of each distinct piece of evidence. Shape: (I, V, d_v); I is not 0."""
        raise NotImplementedError

    def reader(self, reading: Reading) -> Reader:
        """Reads of posts what this encodes."""
        raise NotImplementedError

    def saved_settings(self) -> dict[str, Any]:
        """Settings with a shape in place of a name, so that loading needs no hub."""
        return {}

    def new_modules(self) -> list[nn.Module]:
        """Modules that learn as the projection W^v does."""
        return []

    def freeze(self) -> None:
        """Keep what is gathered in training, such as batch statistics, as it is."""


class CombinedEvidence(Evidence):
    """Several kinds of evidence by name, each a source; their tokens are projected to one width,
    d_v, by a W^v of each kind, without bias."""

    in_text_space = True

    def __init__(
        self, parts: Mapping[str, Evidence], projections: Mapping[str, nn.Module], width: int
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.projections = nn.ModuleDict(projections)
        self.width = width

    def kinds(self) -> Sequence[Evidence]:
        """Those that are combined."""
        return [part for part in self.parts.values() if isinstance(part, Evidence)]

    def by_source(self, evidence: Sequence[EvidenceInput]) -> VisualTokens:
        """All images of the first kind, then those of the next. Shape: (B, E, V, d_v)."""
        every = []
        kinds = zip(self.kinds(), self.projections.values(), evidence, strict=True)
        for kind, project, found in kinds:
            tokens = kind.by_source([found])
            mask, places = tokens.mask[..., None], tokens.places
            places = torch.zeros_like(mask).long() if places is None else places[..., None]
            every.append((project(tokens.values), mask, tokens.boxes, places))
        count = reduce(torch.sym_max, [mask.shape[2] for _, mask, *_ in every])
        values, mask, boxes, places = (
            torch.cat([F.pad(part, (0, 0, 0, count - part.shape[2])) for part in parts], 1)
            for parts in zip(*every, strict=True)
        )
        return VisualTokens(values, mask[..., 0], boxes, places=places[..., 0])

    def new_modules(self) -> list[nn.Module]:
        """W^v of each kind."""
        return [self.projections]

    def freeze(self) -> None:
        """Freeze every kind."""
        for part in self.kinds():
            part.freeze()


class Reader:
    """Reads one kind of evidence; what several images share is loaded once."""

    made_from: str  # the attribute of `PostImage` that holds it
    preprocessing: Preprocessing | None = None  # how images are prepared; None if it looks at none

    def has(self, image: PostImage) -> bool:
        """Whether an image comes with such evidence, readable or not."""
        return getattr(image, self.made_from) is not None

    def split(self, post: Post) -> list[Post]:
        """The post with each image alone."""
        return post.split_by_image()

    def lengths(self, posts: Sequence[Post]) -> list[int]:
        """Tokens of each post, where these differ between posts."""
        return [0] * len(posts)

    def note(self, posts: Sequence[Post]) -> str:
        """What a run that learns from posts should say of them, if anything."""
        return ""

    def keys(self, images: Sequence[PostImage]) -> Sequence[Hashable | None]:
        """The identity of each image's piece of evidence; None where there is none."""
        return [getattr(image, self.made_from) for image in images]

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """Of each identity, known by an image with it, the piece; or a status: no evidence."""
        raise NotImplementedError

    def pack(self, pieces: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, mask and boxes, as `EvidenceInput` has them."""
        raise NotImplementedError

    def read(self, posts: Sequence[Post]) -> tuple[EvidenceInput, list[ImageStatus]]:
        """The evidence of posts, and the best status of each post's images."""
        images = [(post, image) for post in posts for image in post.images]
        keys = self.keys([image for _, image in images])
        wanted = {key: at for key, at in zip(keys, images, strict=True) if key is not None}
        loaded = self.load(wanted)
        pieces = {key: piece for key, piece in loaded.items() if not isinstance(piece, str)}
        rows = {key: row for row, key in enumerate(pieces)}
        states: dict[Hashable, ImageStatus] = {**loaded, **dict.fromkeys(pieces, "used")}
        every = iter(keys)
        by_post = [[next(every) for _ in post.images] for post in posts]
        of_post = pad([[rows.get(key, -1) for key in each] for each in by_post], filler=-1)
        status = [_best(states.get(key, "none") for key in each) for each in by_post]
        return EvidenceInput(*self.pack(list(pieces.values())), of_post), status


class SeeingEvidence(Evidence):
    """An encoder whose network looks at pixels."""

    preprocessing: Preprocessing

    def reader(self, reading: Reading) -> ImageReader:
        """Pixels."""
        return ImageReader(self.preprocessing, reading.images_kept)


class ImageReader(Reader):
    """Images as pixels; one that is missing or cannot be decoded is no evidence. Training sees
    every image once per task and epoch: `budget` bytes of the first ones are kept, and
    no thread takes away what another has found."""

    made_from = "image"
    preprocessing: Preprocessing

    def __init__(self, preprocessing: Preprocessing, budget: int) -> None:
        self.preprocessing = preprocessing
        self.budget = budget
        self._held = 0
        self._kept: dict[Hashable, LoadedImage] = {}

    def keys(self, images: Sequence[PostImage]) -> Sequence[Hashable | None]:
        """The fingerprint of each image."""
        return [fingerprint(image.image) for image in images]

    def load(self, wanted: Mapping[Hashable, tuple[Post, PostImage]]) -> Mapping[Hashable, Any]:
        """Pixels, or why there are none."""
        loaded = {key: image for key in wanted if (image := self._kept.get(key)) is not None}
        new = {key: image.image for key, (_, image) in wanted.items() if key not in loaded}
        # Decoded side by side: decoders let other threads run.
        decoded = self._pool.map(self._load, new.values())
        for (key, source), image in zip(new.items(), decoded, strict=True):
            loaded[key] = image
            # A PIL image may change or be freed: never kept.
            if isinstance(source, Path) and self._held + _bytes(image) <= self.budget:
                self._kept[key] = image
                self._held += _bytes(image)
        found = {key: loaded[key] for key in wanted}
        unusable = {
            key: Unreadable.because(image.reason) if image.status == "unreadable" else image.status
            for key, image in found.items()
        }
        return {k: unusable[k] if i.pixels is None else i.pixels for k, i in found.items()}

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


class EvidenceReader:
    """Reads every kind of evidence that a model takes: none for a system of text alone."""

    def __init__(self, readers: Sequence[Reader] = ()) -> None:
        self.readers = readers
        self.wanted = " or ".join(reader.made_from.replace("_", " ") for reader in readers)

    @classmethod
    def of(cls, evidence: Evidence | None, reading: Reading) -> Self:
        """What reads the input of an encoder; kinds share the memory for images."""
        kinds = evidence.kinds() if evidence else []
        share = replace(reading, images_kept=reading.images_kept // max(len(kinds), 1))
        return cls([kind.reader(share) for kind in kinds])

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How the kind with the largest images has them; None if none looks at an image."""
        looking = [reader.preprocessing for reader in self.readers if reader.preprocessing]
        return max(looking, key=lambda preprocessing: preprocessing.size, default=None)

    def lengths(self, posts: Sequence[Post]) -> list[int]:
        """Tokens of the evidence of each post, where these differ between posts."""
        return list(map(sum, zip(*(reader.lengths(posts) for reader in self.readers), strict=True)))

    def notes(self, posts: Sequence[Post]) -> list[str]:
        """What a run that learns from posts should say of their evidence."""
        return [note for reader in self.readers if (note := reader.note(posts))]

    def has(self, post: Post) -> bool:
        """Whether a post comes with any of the kinds, readable or not."""
        return any(reader.has(image) for reader in self.readers for image in post.images)

    def split_by_source(self, post: Post) -> list[Post]:
        """The post with each image, and each of several kinds, alone: what Task#1 learns from."""
        if len(self.readers) < 2:
            return [alone for reader in self.readers for alone in reader.split(post)] or [post]
        split = []
        for reader in self.readers:
            for alone in reader.split(post):
                image, name = alone.images[0], reader.made_from
                only = PostImage(relation=image.relation, **{name: getattr(image, name)})
                split.append(alone.with_(images=(only,)))
        return [alone for alone in split if self.has(alone)]

    def read(
        self, posts: Sequence[Post]
    ) -> tuple[tuple[EvidenceInput, ...], tuple[ImageStatus, ...]]:
        """The evidence of posts, kind by kind, and the best status of each post's."""
        found = [reader.read(posts) for reader in self.readers]
        status = zip(["none"] * len(posts), *(states for _, states in found), strict=True)
        return tuple(evidence for evidence, _ in found), tuple(map(_best, status))


def _best(status: Iterable[ImageStatus]) -> ImageStatus:
    return max(status, key=ORDER.index)


def whole_image(mask: Tensor) -> Tensor:
    """The box of the whole image for each token. Shape: (I, V) → (I, V, 4)."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0], device=mask.device).expand(*mask.shape, 4)


def gather_tokens(tokens: VisualTokens, of_post: Tensor) -> VisualTokens:
    """Gives every image of every post the tokens of its evidence, and zeros where none is real.
    Shape: (I, V, d_v), (B, M) → (B, M, V, d_v)."""
    # A row of zeros at the end is what index -1 finds.
    found = tokens.map(lambda part: F.pad(part, (0, 0) * (part.ndim - 1) + (0, 1))[of_post])
    real = found.mask[..., None]
    return found._replace(values=found.values * real, boxes=found.boxes * real)


def side_by_side(tokens: VisualTokens) -> VisualTokens:
    """The tokens of all sources of a post in one row, in order, the real ones first.
    Shape: (B, E, V, d_v) → (B, E · V, d_v)."""
    flat = tokens.map(lambda part: part.flatten(1, 2))
    if tokens.mask.shape[1] == 1:
        return flat
    count = flat.mask.shape[1]
    place = torch.arange(count, device=flat.mask.device)
    order = torch.where(flat.mask, place, place + count).argsort(dim=1)
    rows = torch.arange(order.shape[0], device=order.device)[:, None]
    return flat.map(lambda part: part[rows, order])
