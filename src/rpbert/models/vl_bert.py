"""VL-BERT before the biLSTM-CRF (Table 5: biLSTM-CRF + VL-BERT).
Su et al. 2020. VL-BERT: Pre-training of Generic Visual-Linguistic Representations. In ICLR.
One BERT reads [CLS] T [SEP] regions [END], and every element of that sequence, text too, has a
visual feature embedding. Of a region with feature f and box b that is
    g(f, b) = ReLU(W [waves(b); f])        (section 3.2; `waves`)
and of a sub-word it is g of the whole image, which also stands first among the regions:
    text   = word + LayerNorm_t(g(whole image)) + segment A + position
    region = the word [IMG] + LayerNorm_o(g(region)) + segment C + position n
    [END]  = its own embedding + segment C + position n + 1
for a text of n sub-words, each through BERT's LayerNorm. All regions share one position.
As in the authors' code (jackroos/VL-BERT). Deviations: the feature of the whole image is the mean
of its regions, where the authors pool it from its own box. A post without an image has neither
visual feature embeddings nor [END]; the authors give text-only posts a learnt one. The two
LayerNorms start at BERT's scale of 0.02; from the authors' zero W would get no gradient at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpbert.models.vision_language import OneStream
from rpbert.modules.attention import with_whole_image
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel

SEGMENTS = 3  # A and B of the text, C of the image
WAVES = 256  # wavelengths of each coordinate, as published


def waves(boxes: Tensor, width: int = WAVES) -> Tensor:
    """Sines and cosines of a box's centre and sides at many wavelengths.
    For each c of (x centre, y centre, width, height), in hundredths of the image:
    ``sin(c / 1000^(k / width))`` for k = 0 … width - 1, then the cosines (Su et al. 2020, VL-BERT,
    section 3.2, with the wavelengths of the authors' code). Shape: (…, 4) → (…, 8 · width)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    percent = 100 * torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)
    k = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    angles = percent[..., None] / 1000 ** (k / width)  # (…, 4, width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class VlBertRegions(nn.Module):
    """Visual feature embeddings, and what stands in the place of a region's word."""

    def __init__(self, region_width: int, config: BertConfig) -> None:
        super().__init__()
        width, scale = config.hidden_size, config.initializer_range
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        place = 8 * WAVES
        self.projection = nn.Linear(place + region_width, width)  # W
        # Box and feature weigh the same at first, as with the published 2048 numbers of each.
        with torch.no_grad():
            for part in torch.split(self.projection.weight, [place, region_width], dim=1):
                part.uniform_(-1, 1).mul_((2 * part.shape[1]) ** -0.5)
        self.text_norm = nn.LayerNorm(width, eps=1e-12)
        self.region_norm = nn.LayerNorm(width, eps=1e-12)
        self.word = nn.Embedding(1, width)  # [IMG]
        self.end = nn.Embedding(1, width)  # [END]
        for table in (self.word, self.end):
            nn.init.normal_(table.weight, std=scale)
        for norm in (self.text_norm, self.region_norm):
            nn.init.constant_(norm.weight, scale)

    def forward(self, image: VisualTokens) -> Tensor:
        """g of each region. Shape: (S, V, d_v) → (S, V, H)."""
        both = torch.cat([waves(image.boxes), image.values], dim=-1)
        return F.relu(self.projection(self.dropout(both)))


class VlBertEncoder(OneStream):
    """VL-BERT's transformer."""

    Regions = VlBertRegions
    regions: VlBertRegions

    def __init__(self, bert: BertModel, region_width: int) -> None:
        super().__init__(_with_segments(bert), region_width)
        self.max_length -= 2  # positions of the regions and of [END]

    def inputs(
        self, subwords: Tensor, mask: Tensor, image: VisualTokens
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `OneStream.inputs`; the regions are the whole image, each region, [END]."""
        tables, regions = self.bert.embeddings, self.regions
        image = with_whole_image(image)
        visual = regions(image)
        has_image = image.mask[:, :1]  # Shape: (S, 1)

        whole = regions.text_norm(visual[:, :1]) * has_image[:, :, None]
        text = tables(inputs_embeds=tables.word_embeddings(subwords) + whole)

        elements = regions.word.weight + regions.region_norm(visual)
        end = regions.end.weight.expand(has_image.shape[0], 1, -1)
        after = mask.sum(1, keepdim=True)  # n
        positions = torch.cat([after.expand(-1, visual.shape[1]), after + 1], dim=1)
        embedded = tables(
            inputs_embeds=torch.cat([elements, end], dim=1),
            token_type_ids=torch.full_like(positions, SEGMENTS - 1),
            position_ids=positions,
        )
        return text, embedded, torch.cat([image.mask, has_image], dim=1)


def _with_segments(bert: BertModel) -> BertModel:
    """Give a BERT with segments A and B alone a new segment C."""
    known = bert.embeddings.token_type_embeddings
    if known.num_embeddings < SEGMENTS:
        table = nn.Embedding(SEGMENTS, bert.config.hidden_size)
        nn.init.normal_(table.weight, std=bert.config.initializer_range)
        with torch.no_grad():
            table.weight[: known.num_embeddings] = known.weight
        bert.embeddings.token_type_embeddings = table
        bert.config.type_vocab_size = SEGMENTS
    return bert
