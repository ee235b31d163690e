"""A BERT that reads ``[CLS] T [SEP] V``: text, then image blocks (Eq. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from rpbert.modules.evidence import VisualTokens

if TYPE_CHECKING:
    from transformers import BertModel
    from transformers.models.bert.modeling_bert import BertLayer


class TextImageEncoder(nn.Module):
    """Vanilla BERT over word pieces and visual tokens.

    A token's input is the sum of its own embedding, its segment (A text, B image) and its
    position; all visual tokens of a post share the position after its last text token. Rows are
    packed so that the image follows the text at once and padding comes last; with no visual
    token the result is that of transformers' ``BertModel``.

    Source: "Model Design", Eq. 1, and the readings 1 and 4 of the paper's open points.

    Args:
        initial_weights: where the weights were taken from, in words.
    """

    def __init__(self, bert: BertModel, initial_weights: str = "random") -> None:
        super().__init__()
        self.bert = bert
        self.initial_weights = initial_weights
        self.width: int = bert.config.hidden_size
        # The last position is left to the visual tokens of a row that is full of text.
        self.longest: int = bert.config.max_position_embeddings - 1

    def embed(self, subwords: Tensor) -> Tensor:
        """Word-piece embeddings, without segment and position. Shape: (S, L) → (S, L, H)."""
        embedded: Tensor = self.bert.embeddings.word_embeddings(subwords)
        return embedded

    def forward(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """Encode text and image together.

        Args:
            text: word-piece embeddings. Shape: (S, L, H).
            text_mask: real word pieces. Shape: (S, L).
            image: embeddings of the visual tokens, already scaled by r, or None for text alone.
                Shape: (S, V, H).

        Returns:
            The hidden states of the last layer at the text tokens. Shape: (S, L, H). Row 0 of a
            post is its [CLS]; what stands at padding is meaningless.
        """
        hidden, mask = self.embedded(text, text_mask, image)
        return self.layers(hidden, mask, text.shape[1])

    def summary(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """The [CLS] row of `forward`, for which the last layer need not compute any other.

        Shape: (S, L, H), (S, L), (S, V, H) → (S, H).
        """
        hidden, mask = self.embedded(text, text_mask, image)
        return self.layers(hidden, mask, 1)[:, 0]

    def layers(self, hidden: Tensor, mask: Tensor, rows: int) -> Tensor:
        """The first rows of the last layer, which computes no other.

        Shape: (S, N, H), (S, N) → (S, rows, H).
        """
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden = bert_layer(layer, hidden, hidden, mask)
        return bert_layer(last, hidden[:, :rows], hidden, mask)

    def embedded(
        self, text: Tensor, text_mask: Tensor, image: VisualTokens | None
    ) -> tuple[Tensor, Tensor]:
        """What the first layer reads (S, N, H), and what of it is real (S, N)."""
        if image is None:
            return self.bert.embeddings(inputs_embeds=text), text_mask
        tokens, mask, segments, positions = pack(text, text_mask, image)
        embedded = self.bert.embeddings(
            inputs_embeds=tokens, token_type_ids=segments, position_ids=positions
        )
        return embedded, mask


def bert_layer(layer: BertLayer, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """One layer of BERT at some of its rows (Devlin et al. 2019; Vaswani et al. 2017).

    Args:
        layer: the parameters.
        queries: the rows to compute, out of `hidden`. Shape: (S, Q, H).
        hidden: what is attended to. Shape: (S, N, H).
        mask: real tokens of `hidden`. Shape: (S, N).

    Returns:
        Shape: (S, Q, H).
    """
    attended = layer.attention.output(attend(layer.attention.self, queries, hidden, mask), queries)
    found: Tensor = layer.output(layer.intermediate(attended), attended)
    return found


class Attention(Protocol):
    """The projections of an attention, as transformers' modules for BERT and its kin have them."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    dropout: nn.Dropout
    num_attention_heads: int
    attention_head_size: int
    training: bool


def attend(attention: Attention, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention of several heads (Vaswani et al. 2017, section 3.2.2).

    Args:
        queries: Shape: (S, Q, H).
        context: what is attended to. Shape: (S, N, H').
        mask: real tokens of `context`, at least one in every row. Shape: (S, N).

    Returns:
        The heads' findings side by side. Shape: (S, Q, heads · head size).
    """

    def by_head(rows: Tensor) -> Tensor:
        heads, width = attention.num_attention_heads, attention.attention_head_size
        return rows.view(*rows.shape[:2], heads, width).transpose(1, 2)  # (S, heads, rows, width)

    query, key, value = (
        by_head(project(rows))
        for project, rows in (
            (attention.query, queries),
            (attention.key, context),
            (attention.value, context),
        )
    )
    real = mask[:, None, None, :]
    dropout = attention.dropout.p if attention.training else 0.0
    if dropout and query.device.type == "cpu":
        # There the fused kernel knows no dropout, and PyTorch's own way is slow.
        scores = query @ key.transpose(2, 3) * attention.attention_head_size**-0.5
        weights = scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(-1)
        found: Tensor = attention.dropout(weights) @ value
    else:
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=real, dropout_p=dropout
        )
    return found.transpose(1, 2).flatten(2)


def attend_if_any(attention: Attention, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """Attention that finds nothing, a vector of zeros, where nothing of the context is real.

    Shapes as for `attend`; N may be 0.
    """
    nothing = ~mask.any(1, keepdim=True)
    # A softmax over nothing is no number: one token more is there to be found, and dropped.
    context = nn.functional.pad(context, (0, 0, 0, 1))
    found = attend(attention, queries, context, torch.cat([mask, nothing], dim=1))
    return found.masked_fill(nothing[:, :, None], 0.0)


def pack(
    text: Tensor, text_mask: Tensor, image: VisualTokens
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Put each row's visual tokens right after its last text token, padding last.

    Args:
        text: Shape: (S, L, H), real tokens first, `text_mask` (S, L).
        image: Shape: (S, V, H).

    Returns:
        tokens (S, N, H), mask (S, N), segments (S, N) with 1 for image, positions (S, N).
    """
    longest, blocks = text.shape[1], image.values.shape[1]
    words = text_mask.sum(1, keepdim=True)  # n + 2 of each row, Shape: (S, 1)
    blocks_of_row = image.mask.sum(1, keepdim=True)  # m, or 0 without an image
    place = torch.arange(longest + blocks, device=text.device)[None, :]
    is_text = place < words
    is_image = ~is_text & (place < words + blocks_of_row)
    source = torch.where(is_text, place, place - words + longest).clamp(max=longest + blocks - 1)
    both = torch.cat([text, image.values.to(text.dtype)], dim=1)
    tokens = both.gather(1, source[:, :, None].expand(-1, -1, text.shape[2]))
    return tokens, is_text | is_image, is_image.long(), torch.where(is_text, place, words)


def pool_words(hidden: Tensor, word_of_subword: Tensor, posts: int, words: int) -> Tensor:
    """Average the sub-words of each word ("Task#2": OOV words).

    Args:
        hidden: Shape: (S, L, H).
        word_of_subword: ``post * W + word``, -1 where a sub-word counts for none. Shape: (S, L).

    Returns:
        One vector a word, zeros where there is no word. Shape: (B, W, H).
    """
    spare = posts * words  # sub-words that count for no word are summed here and dropped
    index = word_of_subword.flatten()
    index = torch.where(index < 0, spare, index)
    flat = hidden.flatten(0, 1).float()
    sums = flat.new_zeros(spare + 1, flat.shape[1]).index_add(0, index, flat)
    counts = flat.new_zeros(spare + 1).index_add(0, index, torch.ones_like(index, dtype=flat.dtype))
    means = sums[:spare] / counts[:spare].clamp(min=1)[:, None]
    return means.view(posts, words, -1)
