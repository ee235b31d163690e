"""What a system sees of an image: visual tokens, whatever they are made from.

Each kind of evidence is one class, and all give the same `VisualTokens`, so that a system takes
any of them. What several posts of a batch share is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.data.images import Preprocessing
from rpbert.evidence.resnet import BlockNetwork

if TYPE_CHECKING:
    from rpbert.evidence.detector import Detector
    from rpbert.types import Batch, EvidenceInput


class VisualTokens(NamedTuple):
    """The visual tokens of each post; the real ones stand first.

    Where each source of a post stands apart, an axis E follows B in all of them.

    Attributes:
        values: zeros for a post without evidence. Shape: (B, V, d_v).
        mask: all False for a post without evidence. Shape: (B, V).
        boxes: what a token shows of the image, ``x0, y0, x1, y1`` in [0, 1] from the upper left
            corner; zeros where there is no token. Shape: (B, V, 4).
    """

    values: Tensor
    mask: Tensor
    boxes: Tensor


class Evidence(nn.Module):
    """Turns what a batch holds of images into visual tokens.

    Attributes:
        width: size of a visual token, d_v.
    """

    width: int

    def forward(self, batch: Batch) -> VisualTokens:
        """The tokens of each post; V is 0 where no post of the batch has any."""
        return side_by_side(self.by_source(batch.evidence))

    def by_source(self, evidence: Sequence[EvidenceInput]) -> VisualTokens:
        """The tokens of each image of each post apart. Shape: (B, E, V, d_v)."""
        (found,) = evidence
        if not len(found.values):  # the network rests
            sources, like = found.of_post.shape, found.mask
            return VisualTokens(
                like.new_zeros(*sources, 0, self.width, dtype=torch.float32),
                like.new_zeros(*sources, 0),
                like.new_zeros(*sources, 0, 4, dtype=torch.float32),
            )
        return gather_tokens(self.encode(found), found.of_post)

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """The tokens of each distinct piece of evidence. Shape: (I, V, d_v); I is not 0."""
        raise NotImplementedError

    def new_modules(self) -> list[nn.Module]:
        """Modules that learn as the projection W^v does."""
        return []

    def freeze(self) -> None:
        """Keep what is gathered in training, such as batch statistics, as it is."""


class ImageBlocks(Evidence):
    """The blocks f_{i,j} of the last feature map of a network (Eq. 1); a box is a block's cell.

    Args:
        network: makes the blocks.
        preprocessing: how the images are given to it.
    """

    cells: Tensor

    def __init__(self, network: BlockNetwork, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.width = network.width
        self.register_buffer("cells", grid_boxes(network.side, network.side), persistent=False)

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Row by row. Shape: (I, V, d_v)."""
        blocks: Tensor = self.network(found.values)
        mask = found.mask.expand(-1, blocks.shape[1])
        return VisualTokens(blocks, mask, self.cells.expand(len(blocks), -1, -1))

    def freeze(self) -> None:
        """Batch normalisation keeps its statistics from here on."""
        self.network.freeze()


class ImageVector(Evidence):
    """One vector an image, the mean of its blocks (He et al. 2016: global average pooling).

    Args: as of `ImageBlocks`.
    """

    def __init__(self, network: BlockNetwork, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.width = network.width

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, 1, d_v)."""
        blocks: Tensor = self.network(found.values)
        return VisualTokens(blocks.mean(1, keepdim=True), found.mask, whole_image(found.mask))

    def freeze(self) -> None:
        """Batch normalisation keeps its statistics from here on."""
        self.network.freeze()


class StoredRegionFeatures(Evidence):
    """Regions that a detector found beforehand, as the batch holds them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        assert found.boxes is not None  # regions have boxes
        return VisualTokens(found.values, found.mask, found.boxes)


class StoredVector(StoredRegionFeatures):
    """The mean of the regions as the one vector of an image (ViLBERT, Lu et al. 2019, does so)."""

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, 1, d_v)."""
        real = found.mask[:, :, None]  # no image has 0 regions here
        mean = (found.values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        mask = found.mask.any(1, keepdim=True)
        return VisualTokens(mean, mask, whole_image(mask))


class DetectedRegions(Evidence):
    """The regions of which a detector is surest, found when they are asked for."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.preprocessing = Preprocessing(detector.image_size)
        self.width = detector.width

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        features, boxes = self.detector(found.values)
        return VisualTokens(features, found.mask.expand(-1, features.shape[1]), boxes)


class Captions(Evidence):
    """The pieces of a caption, or of what is written in the image, each by its embedding.

    A box is the whole image.

    The table is lent by the part that owns it and reads the post by it, so that a word means the
    same in caption and text; its parameters are not this module's. Tokens bear no order of
    their own, like blocks.

    Args:
        embed: ids to vectors. Shape: (I, V) → (I, V, d_v).
        width: d_v.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.embed = embed
        self.width = width

    def encode(self, found: EvidenceInput) -> VisualTokens:
        """Shape: (I, V, d_v)."""
        return VisualTokens(self.embed(found.values), found.mask, whole_image(found.mask))


class CaptionPieces(Captions):
    """Word pieces, embedded as the text encoder embeds the pieces of the text."""


class CaptionWords(Captions):
    """Words, embedded by the word vectors of the tagger: for systems without text encoder."""


class CombinedEvidence(Evidence):
    """Several kinds of evidence, each a source of its own; their tokens are of one width.

    Args:
        parts: each kind by name, in the order in which the batch holds them.
        projections: to that width, W^v of each kind, without bias.
        width: d_v, that of the projected tokens.
    """

    def __init__(
        self, parts: Mapping[str, Evidence], projections: Mapping[str, nn.Module], width: int
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.projections = nn.ModuleDict(projections)
        self.width = width

    def by_source(self, evidence: Sequence[EvidenceInput]) -> VisualTokens:
        """All images of the first kind, then those of the next. Shape: (B, E, V, d_v)."""
        each = []
        for (name, part), kind in zip(self.parts.items(), evidence, strict=True):
            assert isinstance(part, Evidence)
            tokens = part.by_source([kind])
            each.append(tokens._replace(values=self.projections[name](tokens.values)))
        longest = max(tokens.mask.shape[2] for tokens in each)
        values, mask, boxes = zip(*(_lengthened(tokens, longest) for tokens in each), strict=True)
        return VisualTokens(torch.cat(values, 1), torch.cat(mask, 1), torch.cat(boxes, 1))

    def new_modules(self) -> list[nn.Module]:
        """W^v of each kind."""
        return [self.projections]

    def freeze(self) -> None:
        """Every kind keeps what it gathered."""
        for part in self.parts.values():
            assert isinstance(part, Evidence)
            part.freeze()


class PieceEmbedding(Protocol):
    """A text encoder, as far as captions need one."""

    @property
    def input_width(self) -> int:
        """Size of a piece's embedding, E."""
        ...

    def embed(self, subwords: Tensor) -> Tensor:
        """Word-piece embeddings, without segment and position. Shape: (S, L) → (S, L, E)."""
        ...


def grid_boxes(rows: int, columns: int) -> Tensor:
    """The cells of a grid, row by row. Shape: (rows * columns, 4)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corners = torch.stack([x, y, x + 1, y + 1], dim=-1).flatten(0, 1)
    return corners / torch.tensor([columns, rows, columns, rows])


def whole_image(mask: Tensor) -> Tensor:
    """The box of the whole image for each token. Shape: (I, V) → (I, V, 4)."""
    corners = torch.tensor([0.0, 0.0, 1.0, 1.0], device=mask.device)
    return corners.expand(*mask.shape, 4)


def gather_tokens(tokens: VisualTokens, of_post: Tensor) -> VisualTokens:
    """Gives every image of every post the tokens of its evidence, and zeros where none is real.

    Args:
        tokens: of the distinct pieces of evidence. Shape: (I, V, d_v).
        of_post: the row of each, -1 where there is none. Shape: (B, M).

    Returns:
        Shape: (B, M, V, d_v).
    """
    # A row of zeros at the end is what index -1 finds.
    values, mask, boxes = (
        F.pad(part, (0, 0) * (part.ndim - 1) + (0, 1))[of_post] for part in tokens
    )
    real = mask[..., None]
    return VisualTokens(values * real, mask, boxes * real)


def _lengthened(tokens: VisualTokens, longest: int) -> VisualTokens:
    """Padded to so many tokens a source. Shape: (B, E, V, d_v) → (B, E, longest, d_v)."""
    missing = longest - tokens.mask.shape[2]
    values, boxes = (F.pad(part, (0, 0, 0, missing)) for part in (tokens.values, tokens.boxes))
    return VisualTokens(values, F.pad(tokens.mask, (0, missing)), boxes)


def side_by_side(tokens: VisualTokens) -> VisualTokens:
    """The tokens of all sources of a post in one row, in order, the real ones first.

    Shape: (B, E, V, d_v) → (B, E · V, d_v).
    """
    sources = tokens.mask.shape[1]
    values, mask, boxes = (part.flatten(1, 2) for part in tokens)
    if sources == 1:
        return VisualTokens(values, mask, boxes)
    order = (~mask).int().argsort(dim=1, stable=True)
    values, boxes = (part.gather(1, order[:, :, None].expand_as(part)) for part in (values, boxes))
    return VisualTokens(values, mask.gather(1, order), boxes)
