"""Unicoder-VL before the biLSTM-CRF (as in Table 5, of which it is no row).

Li, G.; Duan, N.; Fang, Y.; Gong, M.; and Jiang, D. 2020. Unicoder-VL: A Universal Encoder for
Vision and Language by Cross-Modal Pre-Training. In AAAI, 11336-11344.

Text and regions are one sequence for one BERT. A region with feature f and box
b = (x0, y0, x1, y1, area), as shares of the image, enters as

    region = LayerNorm(W^f f + W^b b + segment B)

and a sub-word as in BERT: LayerNorm(word + position + segment A).

Known and not known: the paper's text was not at hand. That feature and box go through linear maps
into one space, and that the result is normalised, is told of it at second hand; whether they are
joined and mapped, or mapped and summed, is the same map. No code and no weights of the authors
could be found: their repository (microsoft/Unicoder) announced them as "coming soon". So there is
nothing to convert, the segment inside the LayerNorm is a reading, and a run starts from a BERT.

Deviations: regions may be blocks of a grid (see `evidence`); the predicted class of a region, which
only pre-training used, is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rpbert.evidence.encoders import VisualTokens
from rpbert.models.vision_language import OneStream, VisionLanguageTagger
from rpbert.modules.geometry import with_area

if TYPE_CHECKING:
    from transformers import BertModel


class UnicoderRegions(nn.Module):
    """LayerNorm(W^f f + W^b b + segment).

    Args:
        region_width: d_v.
        width: H.
    """

    def __init__(self, region_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.feature = nn.Linear(region_width, width)
        self.box = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: VisualTokens, segment: Tensor) -> Tensor:
        """Shapes: (S, V, d_v), (H,) → (S, V, H)."""
        embedded = self.feature(image.values) + self.box(with_area(image.boxes)) + segment
        found: Tensor = self.dropout(self.norm(embedded))
        return found


class UnicoderVlEncoder(OneStream):
    """Unicoder-VL's transformer."""

    def __init__(self, bert: BertModel, region_width: int) -> None:
        super().__init__(bert, region_width)
        dropout = bert.config.hidden_dropout_prob
        self.regions = UnicoderRegions(region_width, self.width, dropout)

    def inputs(
        self, subwords: Tensor, mask: Tensor, image: VisualTokens
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `OneStream.inputs`."""
        segment = self.bert.embeddings.token_type_embeddings.weight[1]
        return self.bert.embeddings(subwords), self.regions(image, segment), image.mask


class UnicoderVl(VisionLanguageTagger):
    """Unicoder-VL and biLSTM-CRF."""

    Encoder = UnicoderVlEncoder
