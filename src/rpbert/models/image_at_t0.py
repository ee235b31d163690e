"""biLSTM-CRF with the image at t = 0 (Table 4).

Vinyals, O.; Toshev, A.; Bengio, S.; and Erhan, D. 2015. Show and Tell: A Neural Image Caption
Generator. In CVPR, 3156-3164.

They show the image to a caption generator once, as if it were the word before the first (their
Eq. 10); the RpBERT paper sets such an image before the words of a tagger:

    x_0 = W^v I,   x_t = e_t for t = 1 … n,

I the global image vector. Both directions read it first, so that the LSTM's input is
x_0 e_1 … e_n x_0: the forward direction enters by the one, the backward direction by the other.
Neither takes a tag.

Reconstructed, for the RpBERT paper says no more than that the feature "is placed at the beginning
of LSTM before the word sequence": that the backward direction has its own beginning; that with
more than one layer the further ones read the first one's outputs at both ends too. I is the mean
of the visual tokens, of ResNet's blocks its global average pooling. A post without image has no
x_0, and is read as `bilstm_crf` reads it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rpbert.config.model import BiLstmSettings, EvidenceSettings
from rpbert.evidence.encoders import Evidence
from rpbert.models.build import Parts
from rpbert.models.tagger import BiLstmCrf, BiLstmSystem, TaggerOutput, WordEmbeddings
from rpbert.modules.attention import mean_token
from rpbert.types import Batch


class ImageAtT0Options(BiLstmSettings):
    """An image before the words."""

    evidence: EvidenceSettings


class ImageAtT0(BiLstmSystem):
    """The tagger over x_0 e_1 … e_n x_0.

    Args:
        evidence: image to visual tokens.
        projection: W^v, from the global image vector to the width of e_t.
    """

    Options = ImageAtT0Options

    evidence: Evidence
    projection: nn.Module

    def __init__(
        self,
        evidence: Evidence,
        projection: nn.Module,
        embeddings: WordEmbeddings,
        tagger: BiLstmCrf,
    ) -> None:
        super().__init__(embeddings, tagger)
        self.evidence = evidence
        self.projection = projection

    @classmethod
    def build(cls, options: ImageAtT0Options, parts: Parts) -> ImageAtT0:
        """Assemble the system from its settings."""
        evidence, embeddings = parts.evidence(options.evidence), parts.embeddings()
        projection = parts.projection(evidence, embeddings.width)
        return cls(evidence, projection, embeddings, parts.tagger(embeddings.width))

    def forward(self, batch: Batch) -> TaggerOutput:
        """Tag a batch."""
        tokens = self.evidence(batch)
        image, shown = self.projection(mean_token(tokens)), tokens.mask.any(1)
        with torch.autocast(batch.word_mask.device.type, enabled=False):
            words = self.embeddings(batch)
            sequence, mask = between_images(words, batch.word_mask, image.float(), shown)
            hidden = self.tagger.read(sequence, mask)
        place = torch.arange(words.shape[1], device=words.device) + shown[:, None].long()
        return self.score(batch, rows_at(hidden, place))


def between_images(
    words: Tensor, mask: Tensor, image: Tensor, shown: Tensor
) -> tuple[Tensor, Tensor]:
    """Each post's words, and its image before the first and behind the last, padding behind all.

    Args:
        words: Shape: (B, W, D), `mask` (B, W).
        image: Shape: (B, D).
        shown: whether the post has one. Shape: (B,).

    Returns:
        The sequences (B, W + 2, D) and what of them is real (B, W + 2).
    """
    longest = words.shape[1]
    lengths, first = mask.sum(1, keepdim=True), shown[:, None].long()  # (B, 1)
    place = torch.arange(longest + 2, device=words.device)[None, :]
    is_word = (place >= first) & (place < first + lengths)
    source = torch.where(is_word, place - first, longest)
    sequence = rows_at(torch.cat([words, image[:, None]], dim=1), source)
    return sequence, place < lengths + 2 * first


def rows_at(values: Tensor, place: Tensor) -> Tensor:
    """The rows of each post at given places. Shape: (B, N, D), (B, M) → (B, M, D)."""
    return values.gather(1, place[:, :, None].expand(-1, -1, values.shape[2]))
