"""The types a post passes through, front to back: `Post` → `Batch` → `Prediction`.

Shape letters, used in every docstring of the package:

======  =====================================================================
``B``   posts in a batch
``W``   words of the longest post of the batch
``S``   encoder rows: one a post, more where a post is longer than the encoder
``L``   sub-words of the longest row, special tokens included
``V``   visual tokens of a post (49 blocks of a 7 × 7 grid)
``N``   all tokens of the encoder, text and image (``L + V``)
``H``   hidden size of the encoder
``K``   tags
``U``   distinct words of a batch
``C``   characters of the longest distinct word
``I``   distinct images of a batch, or distinct texts, or sets of regions
``M``   images of the post that has most
``E``   sources of evidence of a post: its images, each with each kind of evidence
======  =====================================================================

Masks are bool and True is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from rpbert.markup import prediction_html

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

TEXTS = {
    "caption": "captions.tsv",
    "image_text": "image_texts.tsv",
    "knowledge": "knowledge.tsv",
}
"""The attributes of `PostImage` that hold a text, each with its file in a data folder."""

ImageStatus: TypeAlias = Literal["used", "none", "missing", "unreadable"]


class Unreadable(str):
    """The status ``unreadable`` with the reason, in one line: it stays with the word, through
    counts and processes, up to wherever it is shown."""

    reason = ""

    @classmethod
    def because(cls, reason: str) -> ImageStatus:
        """The status for a reason."""
        status = cls("unreadable")
        status.reason = reason
        return cast(ImageStatus, status)


def image_counts(seen: Mapping[str, int], states: Iterable[str] | None = None) -> str:
    """How many images have each status, in words, with a reason of those that are unreadable."""
    reason = next((f" ({key.reason})" for key in seen if isinstance(key, Unreadable)), "")
    return ", ".join(
        f"{seen.get(status, 0):,} {status}" + reason * (status == "unreadable")
        for status in states or sorted(seen)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What a detector found in one image."""

    features: NDArray[np.float32]  # (N, d_v)
    boxes: NDArray[np.float32]  # x0, y0, x1, y1 as shares of width and height, in [0, 1] (N, 4)


@dataclass(frozen=True, slots=True)
class StoredRegions:
    """The file and image id under which regions are stored; see `rpbert.data.images`."""

    path: Path
    id: str


@dataclass(frozen=True, slots=True)
class PostImage:
    """An image of a post with what is known of it, or what stands in its place."""

    image: Path | bytes | Image | None = None  # its path, the bytes of its file, or a PIL image
    caption: str | None = None  # a sentence that describes the image
    relation: float | None = None  # 1 where the image adds to the meaning of the text, 0 where not
    regions: Regions | StoredRegions | None = None  # of a detector, or where they are stored
    image_text: str | None = None  # what is written in the image
    knowledge: str | None = None  # what someone or something wrote about the post


@dataclass(frozen=True, slots=True)
class Post:
    """A social post: its words, and whatever is known of its images and entities."""

    id: str  # in a data folder also the file name of its image without suffix
    words: tuple[str, ...]  # to be tagged; a word may be empty or invisible, as in the real data
    text: str  # that `spans` index
    spans: tuple[tuple[int, int], ...]  # ``(start, end)`` of each word in `text`, in characters
    tags: tuple[str, ...] | None = None  # IOB2 as in the source, possibly malformed
    images: tuple[PostImage, ...] = (PostImage(),)  # never empty; an entry may hold no image
    origin: str = ""  # where it was read, for messages, such as ``train.txt:17``
    relation_weight: float = 1.0  # in the loss of Task#1

    @classmethod
    def from_words(cls, id: str, words: tuple[str, ...], **known: Any) -> Post:
        """A post given as words, its text the words joined by one space; `known` as of `with_`."""
        spans, position = [], 0
        for word in words:
            spans.append((position, position + len(word)))
            position += len(word) + 1
        return cls(id, words, " ".join(words), tuple(spans)).with_(**known)

    def with_(self, **changes: Any) -> Post:
        """A copy with some attributes changed, or some of its first `PostImage`."""
        first, *others = changes.pop("images", self.images)
        names = {field.name for field in fields(PostImage)} & changes.keys()
        first = replace(first, **{name: changes.pop(name) for name in names})
        return replace(self, images=(first, *others), **changes)

    @property
    def image(self) -> Path | bytes | Image | None:
        """The first image."""
        return self.images[0].image

    @property
    def caption(self) -> str | None:
        """The caption of the first image."""
        return self.images[0].caption

    @property
    def relation(self) -> float | None:
        """The highest relation that is known of an image of the post."""
        known = [image.relation for image in self.images if image.relation is not None]
        return max(known, default=None)

    def split_by_image(self) -> list[Post]:
        """The post with each of its images alone; those after the first have their own ids."""
        return [
            replace(self, id=self.id if n == 1 else f"{self.id} image {n}", images=(image,))
            for n, image in enumerate(self.images, start=1)
        ]


@dataclass(frozen=True, slots=True)
class Entity:
    """A named entity of a text: ``text == post.text[start:end]``."""

    text: str
    label: str
    start: int
    end: int
    score: float  # probability of exactly this span with this label under the CRF, in [0, 1]


@dataclass(frozen=True, slots=True)
class SourceScore:
    """The relation score of one piece of evidence of a post."""

    evidence: str  # which kind it is, such as ``blocks`` or ``captions``
    image: int  # of which image of the post, counted from 0
    relation: float  # its r, in [0, 1]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The entities of a post and the relation of its image to the text. `relation` is r (Eq. 2) in
    [0, 1], the highest of several sources; 0.0 for a post without a usable image, None for a system
    without a relation gate."""

    id: str
    text: str
    entities: list[Entity]
    relation: float | None
    image: ImageStatus  # ``used`` if an image, or regions or captions in its place, could be
    image_reason: str = ""  # why it is unreadable
    sources: tuple[SourceScore, ...] = ()  # where there is more than one

    def above(self, threshold: float) -> Prediction:
        """The prediction without the entities whose score is below `threshold`."""
        return replace(self, entities=[e for e in self.entities if e.score >= threshold])

    def doubts(self, least: float = 0.5) -> list[str]:
        """Why a person or a larger model should look at the post: entities of a score below
        `least`, r near 0.5, or an image that could not be read."""
        found = [
            f"low score {e.score:.2f}: {e.label} {e.text}" for e in self.entities if e.score < least
        ]
        if self.image == "used" and self.relation is not None and 0.4 <= self.relation <= 0.6:
            found.append(f"r near 0.5: {self.relation:.2f}")
        if self.image in ("missing", "unreadable"):
            found.append(f"image {self.image}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON types; without ``image_reason`` and ``sources`` where empty."""
        content = asdict(self) | {"sources": [asdict(source) for source in self.sources]}
        return {k: v for k, v in content.items() if v or k not in ("image_reason", "sources")}

    def to_displacy(self) -> dict[str, Any]:
        """For ``spacy.displacy.render(…, style="ent", manual=True)``."""
        spans = [{"start": e.start, "end": e.end, "label": e.label} for e in self.entities]
        return {"text": self.text, "ents": spans, "title": None}

    def _repr_html_(self) -> str:
        """How notebooks show a prediction."""
        return prediction_html(self)


class VisualTokens(NamedTuple):
    """The visual tokens of each post, the real ones first; zeros where there is none. Where each
    source of a post stands apart, an axis E follows B in all of them."""

    values: Tensor  # (B, V, d_v)
    mask: Tensor  # all False for a post without evidence (B, V)
    boxes: Tensor  # what it shows: x0, y0, x1, y1 in [0, 1] from the upper left corner (B, V, 4)
    scale: Tensor | None = None  # R, by which the first layer's input is multiplied (B, V)
    weight: Tensor | None = None  # R, by which the attention to it is multiplied (B, V)
    places: Tensor | None = None  # 0, 1, … of a second sentence; None: all 0 (B, V)

    def map(self, change: Callable[[Tensor], Tensor]) -> VisualTokens:
        """The tokens with each of their tensors changed."""
        values, mask, boxes, *share = self
        changed = (None if part is None else change(part) for part in share)
        return VisualTokens(change(values), change(mask), change(boxes), *changed)


@dataclass(slots=True)
class EvidenceInput:
    """One kind of evidence of a batch; what several posts share is there once. `values` are
    normalised pixels (I, 3, height, width), features of regions (I, V, d_v), or ids of a text's
    sub-words (I, V); I is 0 where no post has any."""

    values: Tensor
    mask: Tensor  # real regions or sub-words, which come first; one column for pixels (I, V)
    boxes: Tensor | None  # of regions, as of `VisualTokens`; None for all of the image (I, V, 4)
    of_post: Tensor  # row of the evidence of each image of each post, -1 for none (B, M)

    def without(self, posts: Tensor | None = None) -> EvidenceInput:
        """The same without that of some posts (B,), or of all, where nothing is left to encode."""
        if posts is not None:
            return replace(self, of_post=self.of_post.masked_fill(posts[:, None], -1))
        boxes = None if self.boxes is None else self.boxes[:0]
        none = self.of_post.new_full(self.of_post.shape, -1)
        return EvidenceInput(self.values[:0], self.mask[:0], boxes, none)

    def to(self, device: torch.device | str) -> EvidenceInput:
        """The same on `device`."""
        return replace(self, **_moved(self, device))


@dataclass(slots=True)
class Batch:
    """Posts packed as tensors; distinct words and images are there once. A post longer than the
    encoder takes several encoder rows, which overlap; each of its words is read from the row where
    it has most context on both sides. `word_of_subword` is ``post * W + word`` of each sub-word
    that counts for a word, -1 for special tokens, padding and overlap."""

    posts: tuple[Post, ...]  # in the order of the rows below
    subwords: Tensor  # ids with the special tokens (S, L)
    subword_mask: Tensor  # (S, L)
    post_of_row: Tensor  # the post of each encoder row (S,)
    first_row: Tensor  # the encoder row whose [CLS] speaks for the post (B,)
    word_of_subword: Tensor  # (S, L)
    word_mask: Tensor  # (B, W)
    forms: Tensor  # index of each word among the distinct words of the batch (B, W)
    form_vectors: Tensor  # row of each distinct word in the word-vector table (U,)
    form_characters: Tensor  # ids of each distinct word, 0 is padding (U, C)
    evidence: tuple[EvidenceInput, ...]  # one for each kind that the model takes, in its order
    image_status: tuple[ImageStatus, ...]  # of each post's images, the best one
    tags: Tensor | None = None  # rows of gold tags, 0 on padding; None unless all have them (B, W)
    relations: Tensor | None = None  # probability that the image adds; None unless all have it (B,)

    def __len__(self) -> int:
        return len(self.posts)

    @property
    def has_evidence(self) -> Tensor:
        """Which posts have any evidence. Shape: (B,)."""
        found = self.word_mask.new_zeros(len(self))
        for kind in self.evidence:
            found |= (kind.of_post >= 0).any(1)
        return found

    def without_evidence(self, posts: Tensor | None = None) -> Batch:
        """The batch with some posts (B,), or all, as text alone."""
        return replace(self, evidence=tuple(kind.without(posts) for kind in self.evidence))

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`."""
        evidence = tuple(kind.to(device) for kind in self.evidence)
        return replace(self, **_moved(self, device), evidence=evidence)


def _moved(packed: EvidenceInput | Batch, device: torch.device | str) -> dict[str, Any]:
    """Those fields of `packed` that can be moved, on `device`."""
    return {
        field.name: value.to(device, non_blocking=True)
        for field in fields(packed)
        if hasattr(value := getattr(packed, field.name), "to")
    }


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures of a model's scores; they change probabilities, not what is predicted."""

    spans: float = 1.0  # of the CRF, whose sequences have p(y) ∝ exp(s(y) / T)
    relation: float = 1.0  # of the logits of r (Eq. 2)

    def relation_probability(self, score: float) -> float:
        """σ(logit(r) / T), the probability that the image adds; r of 0 and 1 as nearly so."""
        if self.relation == 1:
            return score
        kept = min(max(score, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(-math.log(kept / (1 - kept)) / self.relation))
