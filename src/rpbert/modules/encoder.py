"""A text encoder that reads ``[CLS] T [SEP] V``: text, then image blocks (Eq. 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rpbert.errors import InputError
from rpbert.types import VisualTokens

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedModel
    from transformers.models.bert.modeling_bert import BertLayer


class EncoderInput(NamedTuple):
    """What an encoder reads, text and image."""

    hidden: Tensor  # tokens without segment and position, or the input of a layer (S, N, H)
    mask: Tensor  # real tokens, without visual tokens of R = 0 (S, N)
    segments: Tensor  # 0 for text and 1 for image (S, N)
    positions: Tensor  # of each token; visual tokens are `places` after the text (S, N)
    scale: Tensor | None = None  # multiplies what the first layer reads of each token (S, N)
    added: Tensor | None = None  # to the scores of each token in attention: log R (S, N)

    @property
    def keys(self) -> Tensor:
        """What `bert_layer` takes as its mask."""
        return self.mask if self.added is None else self.added


class SubwordEncoder(nn.Module):
    """What reads the sub-words of a post: a text encoder, or one of vision and language."""

    width: int  # of a hidden state, H
    input_width: int  # of an embedded sub-word, E; H but for few
    max_length: int  # sub-words of a row
    initial_weights: str = "random"  # where they come from
    loaded: frozenset[str] = frozenset()  # parameters with published weights, by name

    def embed(self, subwords: Tensor) -> Tensor:
        """Sub-word embeddings, without segment and position. Shape: (S, L) → (S, L, E)."""
        raise NotImplementedError

    def new_modules(self) -> list[nn.Module]:
        """Modules that no published text encoder has."""
        raise NotImplementedError

    def new_parameters(self) -> list[nn.Parameter]:
        """What learns as the projection W^v does: what started at random, also in part, beside
        published weights, or would have where all of it did."""
        if self.loaded:
            return [p for name, p in self.named_parameters() if name not in self.loaded]
        return [p for module in self.new_modules() for p in module.parameters()]


class TextImageEncoder(SubwordEncoder, ABC):
    """A published text encoder over its own sub-words and visual tokens ("Model Design", Eq. 1).
    The image follows the text at once, padding comes last, and all visual tokens of a post share
    the position after its last text token, from where a second sentence counts on, each source as
    if it were alone; without them the result is the published encoder's."""

    def __init__(
        self,
        bert: PreTrainedModel,
        max_length: int = 512,
        *,
        sees_images: bool = True,
        initial_weights: str = "random",
    ) -> None:
        super().__init__()
        self.bert = bert
        self.initial_weights = initial_weights
        if initial_weights != "random":
            self.loaded = frozenset(f"bert.{name}" for name, _ in bert.named_parameters())
        self.width = bert.config.hidden_size
        self.input_width = bert.get_input_embeddings().embedding_dim
        positions = int(bert.config.max_position_embeddings) - self._first_position
        # The last position is left to the visual tokens of a row that is full of text.
        self.max_length = min(max_length, positions) - 1
        untyped = sees_images and not self.has_segments
        self.image_type = ImageType(self.input_width) if untyped else nn.Identity()

    @property
    def _first_position(self) -> int:
        """The row of the position table after that of its padding; 0 where none is reserved."""
        for name, module in self.bert.named_modules():
            if name.endswith("position_embeddings"):
                reserved = getattr(module, "padding_idx", None)
                return 0 if reserved is None else int(reserved) + 1
        return 0

    @property
    def has_segments(self) -> bool:
        """Whether the encoder was trained with a second segment, which the image then takes."""
        return int(getattr(self.bert.config, "type_vocab_size", 0)) > 1

    def leave_room(self, tokens: int, key: str) -> None:
        """Keep so many positions behind the text for a second sentence, in place of one. Raises
        InputError, with `key`: less than half would remain, or too few for special tokens."""
        half = (self.max_length + 1) // 2
        if not 4 <= tokens <= half:
            expected = f"from 4 to {half}, half of what the encoder reads"
            raise InputError(key, str(tokens), expected)
        self.max_length -= tokens - 1

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, the lowest first. Raises InputError: they share their weights."""
        config = self.bert.config
        for module in self.bert.modules():
            if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
                return module
        found = f"{config.model_type}, whose layers share their weights"
        raise InputError("model.encoder", found, "layers")

    def check_acts(self, acts: str) -> None:
        """Raise an InputError where R cannot act on what the encoder computes."""

    @abstractmethod
    def first(self, read: EncoderInput) -> Tensor:
        """The input of the first layer. Shape: (S, N, E) → (S, N, H)."""

    @abstractmethod
    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """The first rows of the last layer's output. Shape: (S, N, H) → (S, rows, H)."""

    def embed(self, subwords: Tensor) -> Tensor:
        """See `SubwordEncoder.embed`."""
        embedded: Tensor = self.bert.get_input_embeddings()(subwords)
        return embedded

    def new_modules(self) -> list[nn.Module]:
        """See `SubwordEncoder.new_modules`."""
        return [self.image_type]

    def forward(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """The hidden states of the text tokens: row 0 is [CLS], padding is meaningless.
        `text` are sub-word embeddings, `image` those of the visual tokens and where R acts.
        Shape: (S, L, E), (S, L), (S, V, E) → (S, L, H)."""
        return self.layers(self.embedded(text, text_mask, image), text.shape[1])

    def summary(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """The [CLS] row of `forward`; the last layer computes no other.
        Shape: (S, L, E), (S, L), (S, V, E) → (S, H)."""
        return self.layers(self.embedded(text, text_mask, image), 1)[:, 0]

    def embedded(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> EncoderInput:
        """The input of the first layer."""
        if image is None:
            positions = torch.arange(text.shape[1], device=text.device).expand(text_mask.shape)
            read = EncoderInput(text, text_mask, torch.zeros_like(positions), positions)
        else:
            image = image._replace(values=self.image_type(image.values))
            read = pack(text, text_mask, image)
        return read._replace(hidden=self.first(read))

    def freeze_lowest(self, layers: int) -> None:
        """Keep the weights of so many of the lowest layers, and of what is below or beside."""
        learning: list[nn.Module] = list(self.blocks[layers:])
        if learning and hasattr(self.bert, "final_norm"):  # of ModernBERT
            learning.append(self.bert.final_norm)
        self.bert.requires_grad_(False)
        for module in learning:
            module.requires_grad_(True)


class ImageType(nn.Module):
    """One vector added to each visual token where there is no second segment; it starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """Shape: (S, V, E) → (S, V, E)."""
        return values + self.vector


class BertEncoder(TextImageEncoder):
    """BERT, RoBERTa and their kin: absolute positions, layers as Devlin et al. 2019 have them.
    Text is segment A and the image segment B. RoBERTa has one segment (Liu et al. 2019), where
    `ImageType` stands for the second. The last layer computes only the rows that are asked for."""

    bert: BertModel

    def first(self, read: EncoderInput) -> Tensor:
        """See `TextImageEncoder.first`."""
        embedded: Tensor = self.bert.embeddings(
            inputs_embeds=read.hidden,
            token_type_ids=read.segments if self.has_segments else torch.zeros_like(read.segments),
            position_ids=read.positions + self._first_position,
        )
        return scaled(embedded, read.scale)

    def layers(self, read: EncoderInput, rows: int) -> Tensor:
        """See `TextImageEncoder.layers`."""
        *lower, last = self.blocks
        for layer in lower:
            read = read._replace(hidden=self.compute(layer, read.hidden.shape[1], read))
        return self.compute(last, rows, read)

    def compute(self, layer: nn.Module, rows: int, read: EncoderInput) -> Tensor:
        """The first rows of a layer's output. Shape: (S, rows, H)."""
        return bert_layer(layer, read.hidden[:, :rows], read.hidden, read.keys)


def scaled(hidden: Tensor, scale: Tensor | None) -> Tensor:
    """Each token times its scale. Shape: (S, N, H), (S, N) → (S, N, H)."""
    return hidden if scale is None else hidden * scale[:, :, None].to(hidden.dtype)


def bert_layer(
    layer: BertLayer, queries: Tensor, context: Tensor, mask: Tensor, *, may_be_empty: bool = False
) -> Tensor:
    """One layer of BERT, for `queries` that attend to `context` (Devlin et al. 2019).
    `mask` is True for what is read, or holds what is added to its scores; bool if it may be empty.
    Shape: (S, Q, H), (S, N, H), (S, N) → (S, Q, H)."""
    attention = attend_if_any if may_be_empty else attend
    context = attention(layer.attention.self, queries, context, mask)
    attended = layer.attention.output(context, queries)
    found: Tensor = layer.output(layer.intermediate(attended), attended)
    return found


def attend(attention: Any, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention of several heads (Vaswani et al. 2017, section 3.2.2).
    `attention` has projections and dropout as transformers' ``BertSelfAttention``; each row of
    `mask` has a real token. Shape: (S, Q, H), (S, N, H'), (S, N) → (S, Q, heads · head size)."""
    projected = attention.query(queries), attention.key(context), attention.value(context)
    dropout = attention.dropout.p if attention.training else 0.0
    return attend_heads(*projected, mask, attention.num_attention_heads, dropout)


def attend_heads(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int, dropout: float = 0.0
) -> Tensor:
    """`attend` after the projections. Shapes: (S, Q, D), 2 × (S, N, D), (S, N) → (S, Q, D)."""
    query, key, value = (
        # (S, heads, rows, head size); without rows a size of -1 would be ambiguous
        rows.view(*rows.shape[:2], heads, rows.shape[2] // heads).transpose(1, 2)
        for rows in (query, key, value)
    )
    keys = mask[:, None, None, :]
    if dropout and query.device.type == "cpu":
        # PyTorch's fused kernel has no dropout there, and its fallback is slower than this.
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        if keys.dtype is torch.bool:
            scores = scores.masked_fill(~keys, torch.finfo(scores.dtype).min)
        else:
            scores = scores + keys
        weights = scores.softmax(-1).to(value.dtype)
        found = nn.functional.dropout(weights, dropout) @ value
    else:
        found = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=keys if keys.dtype is torch.bool else keys.to(query.dtype),
            dropout_p=dropout,
        )
    return found.transpose(1, 2).contiguous().flatten(2)


def attend_if_any(attention: Any, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """`attend`, with zeros where nothing of the context is real; N may be 0."""
    nothing = ~mask.any(1, keepdim=True)
    # A softmax over nothing is NaN: such a row attends to one token more, and is set to zero.
    context = nn.functional.pad(context, (0, 0, 0, 1))
    found = attend(attention, queries, context, torch.cat([mask, nothing], dim=1))
    return found.masked_fill(nothing[:, :, None], 0.0)


def pack(text: Tensor, text_mask: Tensor, image: VisualTokens) -> EncoderInput:
    """Put each row's visual tokens right after its last text token, padding last.
    Shape: (S, L, H), (S, L), (S, V, H) → (S, N, H)."""
    length, blocks = text.shape[1], image.values.shape[1]
    words = text_mask.sum(1, keepdim=True)  # n + 2 of each row, Shape: (S, 1)
    blocks_of_row = image.mask.sum(1, keepdim=True)  # m, or 0 without an image
    place = torch.arange(length + blocks, device=text.device)[None, :]
    is_text = place < words
    is_image = ~is_text & (place < words + blocks_of_row)
    source = torch.where(is_text, place, place - words + length).clamp(max=length + blocks - 1)
    both = torch.cat([text, image.values.to(text.dtype)], dim=1)
    tokens = both.gather(1, source[:, :, None].expand(-1, -1, text.shape[2]))

    def laid_out(of_image: Tensor) -> Tensor:
        """What every token has, 1 for text. Shape: (S, V) → (S, N)."""
        of_text = torch.ones_like(text_mask, dtype=of_image.dtype)
        return torch.cat([of_text, of_image], 1).gather(1, source)

    behind = words if image.places is None else words + laid_out(image.places)
    # Padding has a position, too, which the table must have.
    positions = torch.where(is_text, place, torch.where(is_image, behind, words))
    read = EncoderInput(tokens, is_text | is_image, is_image.long(), positions)
    if image.scale is not None:
        scale = laid_out(image.scale)
        read = read._replace(mask=read.mask & (scale > 0), scale=scale)
    if image.weight is not None:
        weight, least = laid_out(image.weight), torch.finfo(image.weight.dtype)
        mask = read.mask & (weight > 0)
        log = weight.clamp(min=least.tiny).log()
        read = read._replace(mask=mask, added=log.masked_fill(~mask, least.min))
    return read


def pool_words(hidden: Tensor, word_of_subword: Tensor, posts: int, words: int) -> Tensor:
    """Average the sub-words of each word ("Task#2": OOV words).
    `word_of_subword` is ``post * W + word``, or -1 for none; where there is no word are zeros.
    Shape: (S, L, H), (S, L) → (B, W, H)."""
    spare = posts * words  # sub-words that count for no word are summed here and dropped
    index = word_of_subword.flatten()
    index = torch.where(index < 0, spare, index)
    flat = hidden.flatten(0, 1).float()
    sums = flat.new_zeros(spare + 1, flat.shape[1]).index_add(0, index, flat)
    counts = flat.new_zeros(spare + 1).index_add(0, index, torch.ones_like(index, dtype=flat.dtype))
    means = sums[:spare] / counts[:spare].clamp(min=1)[:, None]
    return means.view(posts, words, -1)
