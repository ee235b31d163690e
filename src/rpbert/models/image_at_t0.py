"""biLSTM-CRF with the image at t = 0 (Table 4).
Vinyals et al. 2015. Show and Tell: A Neural Image Caption Generator. In CVPR, 3156-3164.
A caption generator sees the image once, in the place of the word before the first (their Eq. 10);
the RpBERT paper sets it before the words of a tagger:
    x_0 = W^v I,   x_t = e_t for t = 1 … n.
I is the mean of the visual tokens; a post without image has no x_0. Reconstructed: both directions
begin with x_0, so that the first layer reads x_0 e_1 … e_n x_0; x_0 takes no tag."""

from __future__ import annotations

import torch
from torch import Tensor

from rpbert.models.build import Builder
from rpbert.models.tagger import FusionOptions, FusionSystem, TaggerOutput, in_float32
from rpbert.modules.attention import mean_token
from rpbert.types import Batch


class ImageAtT0(FusionSystem):
    """The tagger over x_0 e_1 … e_n x_0."""

    def __init__(self, options: FusionOptions, builder: Builder) -> None:
        super().__init__(options, builder, builder.embeddings.width)

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        image, has_image = self.projection(mean_token(tokens)), tokens.mask.any(1)
        with in_float32(batch):
            words = self.embeddings(batch)
            sequence, mask = between_images(words, batch.word_mask, image.float(), has_image)
            hidden = self.tagger.read(sequence, mask)
        place = torch.arange(words.shape[1], device=words.device) + has_image[:, None].long()
        return self.score(batch, rows_at(hidden, place))


def between_images(
    words: Tensor, mask: Tensor, image: Tensor, has_image: Tensor
) -> tuple[Tensor, Tensor]:
    """Each post's words with its image before the first and after the last, padding last.
    Shape: (B, W, D), (B, W), (B, D), (B,) → (B, W + 2, D), (B, W + 2)."""
    width = words.shape[1]
    lengths, first = mask.sum(1, keepdim=True), has_image[:, None].long()  # (B, 1)
    place = torch.arange(width + 2, device=words.device)[None, :]
    is_word = (place >= first) & (place < first + lengths)
    source = torch.where(is_word, place - first, width)
    sequence = rows_at(torch.cat([words, image[:, None]], dim=1), source)
    return sequence, place < lengths + 2 * first


def rows_at(values: Tensor, place: Tensor) -> Tensor:
    """The rows of each post at given places. Shape: (B, N, D), (B, M) → (B, M, D)."""
    return values.gather(1, place[:, :, None].expand(-1, -1, values.shape[2]))
