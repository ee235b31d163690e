"""DeBERTa among text and image: disentangled attention over relative positions.

He, P.; Liu, X.; Gao, J.; and Chen, W. 2021. DeBERTa: Decoding-enhanced BERT with Disentangled
Attention. In ICLR. He, P.; Gao, J.; and Chen, W. 2023. DeBERTaV3. In ICLR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rpbert.modules.encoder import LayeredEncoder, Sequence

if TYPE_CHECKING:
    from transformers import DebertaV2Model
    from transformers.models.deberta_v2.modeling_deberta_v2 import (
        DebertaV2Layer,
        DisentangledSelfAttention,
    )


class DebertaEncoder(LayeredEncoder):
    """DeBERTa-v2 and v3.

    There is no segment, so `ImageType` tells the image from the text. All visual tokens of a post
    stand at one position, the one after its text: they are at distance 0 from each other, and each
    text token sees all of them at its distance from the text's end.
    """

    bert: DebertaV2Model

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first."""
        layers: nn.ModuleList = self.bert.encoder.layer
        return layers

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """See `TextImageEncoder.first`."""
        types = segments if self.has_segments else torch.zeros_like(segments)
        embedded: Tensor = self.bert.embeddings(
            inputs_embeds=tokens, token_type_ids=types, position_ids=positions, mask=mask
        )
        return embedded

    def compute(self, layer: nn.Module, rows: int, read: Sequence) -> Tensor:
        """See `LayeredEncoder.compute`."""
        inner: DebertaV2Layer = layer
        convolved = self.bert.encoder.conv is not None and layer is self.blocks[0]
        queries = read.hidden if convolved else read.hidden[:, :rows]
        found = self._attend(inner.attention.self, queries, read)
        attended = inner.attention.output(found, queries)
        hidden: Tensor = inner.output(inner.intermediate(attended), attended)
        if convolved:  # the largest models have a convolution beside their first layer
            hidden = self.bert.encoder.conv(read.hidden, hidden, read.mask.long())[:, :rows]
        return hidden

    def _attend(
        self, attention: DisentangledSelfAttention, queries: Tensor, read: Sequence
    ) -> Tensor:
        """Content to content, content to position and position to content (Eq. 4 of the paper).

        Shape: (S, Q, H) → (S, Q, H).
        """
        heads = attention.num_attention_heads

        def by_head(rows: Tensor) -> Tensor:  # (…, rows, H) → (…, heads, rows, width)
            return rows.view(*rows.shape[:-1], heads, -1).transpose(-3, -2)

        query = by_head(attention.query_proj(queries))
        key, value = (
            by_head(project(read.hidden)) for project in (attention.key_proj, attention.value_proj)
        )
        scores = query @ key.transpose(-1, -2)
        kinds = attention.pos_att_type if attention.relative_attention else []
        if kinds:
            table = attention.pos_dropout(self.bert.encoder.get_rel_embedding())
            place = self._buckets(attention, read.positions, queries.shape[1])[:, None]
            shape = (-1, heads, -1, -1)
            shared = attention.share_att_key
        if "c2p" in kinds:
            project = attention.key_proj if shared else attention.pos_key_proj
            toward = query @ by_head(project(table)).transpose(-1, -2)  # (S, heads, Q, 2 spans)
            scores = scores + toward.gather(-1, place.expand(shape))
        if "p2c" in kinds:
            project = attention.query_proj if shared else attention.pos_query_proj
            away = key @ by_head(project(table)).transpose(-1, -2)  # (S, heads, N, 2 spans)
            picked = away.gather(-1, place.transpose(-1, -2).expand(shape))
            scores = scores + picked.transpose(-1, -2)
        terms = 1 + ("c2p" in kinds) + ("p2c" in kinds)
        scores = scores / (terms * query.shape[-1]) ** 0.5
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~read.mask[:, None, None, :], lowest).softmax(-1)
        found: Tensor = attention.dropout(weights) @ value
        return found.transpose(1, 2).flatten(2)

    @staticmethod
    def _buckets(attention: DisentangledSelfAttention, positions: Tensor, rows: int) -> Tensor:
        """δ(i, j): the row of the relative embeddings for each query and key. Shape: (S, Q, N)."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        distance = positions[:, :rows, None] - positions[:, None, :]
        if attention.position_buckets > 0:
            distance = make_log_bucket_position(
                distance, attention.position_buckets, attention.max_relative_positions
            ).long()
        span = int(attention.pos_ebd_size)
        return (distance + span).clamp(0, 2 * span - 1)
