"""UNITER and Unicoder-VL before the biLSTM-CRF (Table 5: biLSTM-CRF + UNITER).
Chen et al. 2020. UNITER: Universal Image-Text Representation Learning. In ECCV, 104-120.
Li et al. 2020. Unicoder-VL: A Universal Encoder for Vision and Language by Cross-Modal
Pre-Training. In AAAI, 11336-11344.
Text and regions are one sequence for one BERT. A region with feature f and box (x0, y0, x1, y1), as
shares of the image, enters as
    UNITER        LayerNorm(LayerNorm(W^f f) + LayerNorm(W^b b) + segment B),
                  b = (x0, y0, x1, y1, w, h, w · h)
    Unicoder-VL   LayerNorm(W^f f + W^b b + segment B),  b = (x0, y0, x1, y1, area)
and a sub-word as in BERT: LayerNorm(word + position + segment A). Regions have no position.
UNITER is as in the authors' code (ChenRocks/UNITER); of Unicoder-VL no code or weights were at
hand, and the segment inside the LayerNorm is a reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rpbert.models.vision_language import AreaRegions, OneStream
from rpbert.modules.geometry import with_sides
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertConfig


class UniterRegions(nn.Module):
    """LayerNorm(LayerNorm(W^f f) + LayerNorm(W^b b) + segment)."""

    def __init__(self, region_width: int, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.feature = nn.Linear(region_width, width)
        self.feature_norm = nn.LayerNorm(width, eps=1e-12)
        self.box = nn.Linear(7, width)
        self.box_norm = nn.LayerNorm(width, eps=1e-12)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, image: VisualTokens, segment: Tensor) -> Tensor:
        """Shapes: (S, V, d_v), (H,) → (S, V, H)."""
        feature = self.feature_norm(self.feature(image.values))
        box = self.box_norm(self.box(with_sides(image.boxes)))
        embedded: Tensor = self.dropout(self.norm(feature + box + segment))
        return embedded


class UniterEncoder(OneStream):
    """UNITER's transformer."""

    Regions = UniterRegions


class UnicoderVlEncoder(OneStream):
    """Unicoder-VL's transformer."""

    Regions = AreaRegions
