"""A text encoder that reads ``[CLS] T [SEP] V``: text, then image blocks (Eq. 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rpbert.evidence.encoders import VisualTokens
from rpbert.modules.mixing import LastLayer, LayerMix

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedModel
    from transformers.models.bert.modeling_bert import BertLayer

LONGEST = 512
"""Tokens of a row if nothing else is said; attention grows with the square."""


class Sequence(NamedTuple):
    """What the layers of an encoder read, text and image.

    Attributes:
        hidden: embedded tokens, or what a layer made of them. Shape: (S, N, H).
        mask: real tokens. Shape: (S, N).
        positions: place of each token in its row from 0 on; visual tokens share the one after
            the text. Shape: (S, N).
    """

    hidden: Tensor
    mask: Tensor
    positions: Tensor


class SubwordEncoder(nn.Module):
    """What reads the sub-words of a post: a text encoder, or one of vision and language.

    Attributes:
        width: size of a hidden state, H.
        input_width: size of an embedded sub-word, E; H but for few.
        longest: most sub-words of a row.
        initial_weights: where the weights were taken from, in words.
    """

    width: int
    input_width: int
    longest: int
    initial_weights: str = "random"

    def embed(self, subwords: Tensor) -> Tensor:
        """Sub-word embeddings, without segment and position. Shape: (S, L) → (S, L, E)."""
        raise NotImplementedError

    def new_modules(self) -> list[nn.Module]:
        """Modules that no published text encoder has; they learn as the projection W^v does."""
        raise NotImplementedError


class TextImageEncoder(SubwordEncoder, ABC):
    """A published text encoder over its own sub-words and visual tokens.

    A token's input is its own embedding with what tells text from image and where it stands: all
    visual tokens of a post share the position after its last text token. Rows are packed so that
    the image follows the text at once and padding comes last; with no visual token the result is
    that of the published encoder. How a family tells segment and position, its class says.

    Source: "Model Design", Eq. 1, and the readings 1 and 4 of the paper's open points.

    Args:
        bert: an encoder of transformers.
        longest: most tokens of a row, as far as the encoder has positions for them.
        mix: which of the last layers speak for a token.
        sees_images: whether visual tokens will come.
        initial_weights: where the weights were taken from, in words.

    Attributes:
        width: size of a hidden state, H.
        input_width: size of what is read, of sub-words and visual tokens alike; H but for few.
    """

    def __init__(
        self,
        bert: PreTrainedModel,
        longest: int = LONGEST,
        mix: LayerMix | None = None,
        *,
        sees_images: bool = True,
        initial_weights: str = "random",
    ) -> None:
        super().__init__()
        self.bert = bert
        self.mix = mix or LastLayer()
        self.initial_weights = initial_weights
        self.width: int = bert.config.hidden_size
        self.input_width: int = bert.get_input_embeddings().embedding_dim
        # The last position is left to the visual tokens of a row that is full of text.
        self.longest: int = min(longest, self.room) - 1
        untyped = sees_images and not self.has_segments
        self.image_type = ImageType(self.input_width) if untyped else nn.Identity()

    @property
    def room(self) -> int:
        """How many positions the encoder knows."""
        return int(self.bert.config.max_position_embeddings) - self._first_position

    @property
    def _first_position(self) -> int:
        """The row of the position table behind that of its padding; 0 where none is reserved."""
        tables = (
            m for name, m in self.bert.named_modules() if name.endswith("position_embeddings")
        )
        reserved = getattr(next(tables, None), "padding_idx", None)
        return 0 if reserved is None else reserved + 1

    @property
    def has_segments(self) -> bool:
        """Whether the encoder was trained with a second segment, which the image then takes."""
        return int(getattr(self.bert.config, "type_vocab_size", 0)) > 1

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first."""

    @abstractmethod
    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """What the first layer reads.

        Args:
            tokens: sub-word embeddings and visual tokens. Shape: (S, N, E).
            mask: real tokens. Shape: (S, N).
            segments: 0 for text, 1 for image. Shape: (S, N).
            positions: Shape: (S, N).

        Returns:
            Shape: (S, N, H).
        """

    @abstractmethod
    def layers(self, read: Sequence, rows: int) -> Tensor:
        """The first rows of what the layers say. Shape: (S, N, H) → (S, rows, H)."""

    def embed(self, subwords: Tensor) -> Tensor:
        """Sub-word embeddings, without segment and position. Shape: (S, L) → (S, L, E)."""
        embedded: Tensor = self.bert.get_input_embeddings()(subwords)
        return embedded

    def new_modules(self) -> list[nn.Module]:
        """The weights of summed layers, and what tells the image from the text."""
        return [self.mix, self.image_type]

    def forward(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """Encode text and image together.

        Args:
            text: sub-word embeddings. Shape: (S, L, E).
            text_mask: real sub-words. Shape: (S, L).
            image: embeddings of the visual tokens, already scaled by r, or None for text alone.
                Shape: (S, V, E).

        Returns:
            The hidden states that speak for the text tokens. Shape: (S, L, H). Row 0 of a post is
            its [CLS]; what stands at padding is meaningless.
        """
        return self.layers(self.embedded(text, text_mask, image), text.shape[1])

    def summary(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """The [CLS] row of `forward`, for which the last layer need not compute any other.

        Shape: (S, L, E), (S, L), (S, V, E) → (S, H).
        """
        return self.layers(self.embedded(text, text_mask, image), 1)[:, 0]

    def embedded(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Sequence:
        """What the first layer reads."""
        if image is None:
            positions = torch.arange(text.shape[1], device=text.device).expand(text_mask.shape)
            segments, tokens, mask = torch.zeros_like(positions), text, text_mask
        else:
            image = image._replace(values=self.image_type(image.values))
            tokens, mask, segments, positions = pack(text, text_mask, image)
        return Sequence(self.first(tokens, mask, segments, positions), mask, positions)

    def heights(self) -> Iterator[tuple[nn.Parameter, int]]:
        """The published parameters, each with the number of layers above it.

        Embeddings, and what else lies below or beside the layers, have all of them above.
        """
        above = {
            id(parameter): len(self.blocks) - depth
            for depth, layer in enumerate(self.blocks, start=1)
            for parameter in layer.parameters()
        }
        above |= {id(parameter): 0 for parameter in self.on_top()}
        for parameter in self.bert.parameters():
            yield parameter, above.get(id(parameter), len(self.blocks))

    def on_top(self) -> Iterator[nn.Parameter]:
        """The parameters of what follows the last layer."""
        yield from ()

    def freeze_lowest(self, layers: int) -> None:
        """Keep the embeddings and so many of the lowest layers as they are."""
        for parameter, above in self.heights():
            if above >= len(self.blocks) - layers:
                parameter.requires_grad_(False)


class ImageType(nn.Module):
    """Tells visual tokens from text where an encoder has no second segment.

    One vector is added to each, as the embedding of BERT's segment B would be; it starts at zero,
    where the published encoder is left as it was.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """Shape: (S, V, E) → (S, V, E)."""
        return values + self.vector


class LayeredEncoder(TextImageEncoder):
    """An encoder that is computed layer by layer here, no more of the last one than is read."""

    @abstractmethod
    def compute(self, layer: nn.Module, rows: int, read: Sequence) -> Tensor:
        """The first rows of what a layer makes of a sequence. Shape: (S, rows, H)."""

    def finish(self, hidden: Tensor) -> Tensor:
        """What follows the last layer, such as a norm. Shape: (S, rows, H) → (S, rows, H)."""
        return hidden

    def layers(self, read: Sequence, rows: int) -> Tensor:
        """The first rows of what the layers say; the last one computes no other.

        Shape: (S, N, H) → (S, rows, H).
        """
        states: deque[Tensor] = deque(maxlen=self.mix.count)
        top = len(self.blocks)
        for depth, layer in enumerate(self.blocks, start=1):
            wanted = rows if depth == top else read.hidden.shape[1]
            hidden = self.compute(layer, wanted, read)
            read = read._replace(hidden=hidden)
            states.append(hidden[:, :rows])
        mixed: Tensor = self.mix([self.finish(state) for state in states])
        return mixed


class BertEncoder(LayeredEncoder):
    """BERT, RoBERTa and their kin: absolute positions, layers as Devlin et al. 2019 have them.

    Text is segment A and the image segment B; RoBERTa has one segment (Liu et al. 2019), where
    `ImageType` stands for the second, and counts positions from behind that of its padding.
    """

    bert: BertModel

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first."""
        layers: nn.ModuleList = self.bert.encoder.layer
        return layers

    def first(self, tokens: Tensor, mask: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """See `TextImageEncoder.first`."""
        embedded: Tensor = self.bert.embeddings(
            inputs_embeds=tokens,
            token_type_ids=segments if self.has_segments else torch.zeros_like(segments),
            position_ids=positions + self._first_position,
        )
        return embedded

    def compute(self, layer: nn.Module, rows: int, read: Sequence) -> Tensor:
        """See `LayeredEncoder.compute`."""
        return bert_layer(layer, read.hidden[:, :rows], read.hidden, read.mask)


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
