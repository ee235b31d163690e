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

from functools import partial

from rpbert.models.vision_language import BoxRegions, OneStream


class UniterEncoder(OneStream):
    """UNITER's transformer."""

    Regions = partial(BoxRegions, sides=True)


class UnicoderVlEncoder(OneStream):
    """Unicoder-VL's transformer."""

    Regions = BoxRegions
