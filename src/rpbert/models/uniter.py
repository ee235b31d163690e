"""UNITER before the biLSTM-CRF (Table 5: biLSTM-CRF + UNITER).

Chen, Y.-C.; Li, L.; Yu, L.; Kholy, A. E.; Ahmed, F.; Gan, Z.; Cheng, Y.; and Liu, J. 2020. UNITER:
Universal Image-Text Representation Learning. In ECCV, 104-120.

Text and regions are one sequence for one BERT. A region with feature f and box
b = (x0, y0, x1, y1, w, h, w · h), as shares of the image, enters as

    region = LayerNorm(LayerNorm(W^f f) + LayerNorm(W^b b) + segment B)

and a sub-word as in BERT: LayerNorm(word + position + segment A). Regions have no position.

Verified against the authors' code (ChenRocks/UNITER, `model/model.py`, `data/data.py`): these
equations, the seven numbers of a box, the names and shapes of the weights
(`rpbert.integrations.published_names`). The published weights themselves were not at hand.

Deviations: regions may be blocks of a grid (see `evidence`), where the authors take Faster R-CNN's;
the embedding that masks a region in pre-training is left out, as is the pooler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rpbert.evidence.encoders import VisualTokens
from rpbert.models.vision_language import OneStream, VisionLanguageTagger
from rpbert.modules.geometry import with_sides

if TYPE_CHECKING:
    from transformers import BertModel


class UniterRegions(nn.Module):
    """LayerNorm(LayerNorm(W^f f) + LayerNorm(W^b b) + segment).

    Args:
        region_width: d_v.
        width: H.
    """

    def __init__(self, region_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.feature = nn.Linear(region_width, width)
        self.feature_norm = nn.LayerNorm(width, eps=1e-12)
        self.box = nn.Linear(7, width)
        self.box_norm = nn.LayerNorm(width, eps=1e-12)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: VisualTokens, segment: Tensor) -> Tensor:
        """Shapes: (S, V, d_v), (H,) → (S, V, H)."""
        feature = self.feature_norm(self.feature(image.values))
        box = self.box_norm(self.box(with_sides(image.boxes)))
        found: Tensor = self.dropout(self.norm(feature + box + segment))
        return found


class UniterEncoder(OneStream):
    """UNITER's transformer."""

    def __init__(self, bert: BertModel, region_width: int) -> None:
        super().__init__(bert, region_width)
        self.regions = UniterRegions(region_width, self.width, bert.config.hidden_dropout_prob)

    def inputs(
        self, subwords: Tensor, mask: Tensor, image: VisualTokens
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `OneStream.inputs`."""
        segment = self.bert.embeddings.token_type_embeddings.weight[1]
        return self.bert.embeddings(subwords), self.regions(image, segment), image.mask


class Uniter(VisionLanguageTagger):
    """UNITER and biLSTM-CRF."""

    Encoder = UniterEncoder
