"""ModernBERT among text and image: rotary positions, and layers that look near by.

Warner, B.; et al. 2025. Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast,
Memory Efficient, and Long Context Finetuning and Inference. In ACL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rpbert.modules.encoder import LayeredEncoder, Sequence

if TYPE_CHECKING:
    from transformers import ModernBertModel
    from transformers.models.modernbert.modeling_modernbert import ModernBertEncoderLayer


class ModernBertEncoder(LayeredEncoder):
    """ModernBERT.

    There is no segment, so `ImageType` tells the image from the text. All visual tokens of a post
    are turned by the angle of one position, the one after its text. A layer that looks no farther
    than some tokens measures that by these positions: a text token sees all visual tokens or none.
    """

    bert: ModernBertModel

    def __init__(self, bert: ModernBertModel, *args: Any, **kwargs: Any) -> None:
        # Masks are given as they are; other ways of attention would not read them.
        bert.set_attn_implementation("sdpa")
        super().__init__(bert, *args, **kwargs)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first."""
        layers: nn.ModuleList = self.bert.layers
        return layers

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """See `TextImageEncoder.first`."""
        embedded: Tensor = self.bert.embeddings(inputs_embeds=tokens)
        return embedded

    def compute(self, layer: nn.Module, rows: int, read: Sequence) -> Tensor:
        """See `LayeredEncoder.compute`."""
        inner: ModernBertEncoderLayer = layer
        kind, positions = inner.attention_type, read.positions
        seen = read.mask[:, None, None, :]  # (S, 1, 1, N)
        if kind == "sliding_attention":
            distance = (positions[:, :, None] - positions[:, None, :]).abs()
            near = distance <= self.bert.config.sliding_window
            # What stands at padding is meaningless, but a softmax over nothing is no number.
            seen = (seen & near[:, None]) | ~read.mask[:, None, :, None]
        turn = self.bert.rotary_emb(read.hidden, positions, kind)
        hidden: Tensor = inner(read.hidden, attention_mask=seen, position_embeddings=turn)
        return hidden[:, :rows]

    def finish(self, hidden: Tensor) -> Tensor:
        """The norm after the last layer."""
        finished: Tensor = self.bert.final_norm(hidden)
        return finished

    def on_top(self) -> Iterator[nn.Parameter]:
        """The parameters of what follows the last layer."""
        yield from self.bert.final_norm.parameters()
