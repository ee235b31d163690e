"""How much of a text's attention goes to its image: S_TV (Eq. 10) and a_j^v (Eq. 11).

Both are sums of one quantity, the attention of a word to a block averaged over layers and heads:

    A[i, j] = 1/(LH) Σ_l Σ_h Att^(l,h)(w_i, v_j)    a_j^v = Σ_i A[i, j]    S_TV = Σ_j a_j^v

The words w_1 … w_n of Eq. 1 are word pieces without [CLS] and [SEP]; the pieces of a word are
summed, so that a word has one row of A. The paper's Fig. 3 shows S_TV below 1, which a sum over
words hardly is: S_TV divided by the number of words is given as well. Attention is that of the
second pass, which reads R ⊙ V; tagging itself never forms its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rpbert.errors import InputError
from rpbert.evidence.base import side_by_side
from rpbert.inference import Tagger, prediction_of
from rpbert.models.rpbert import RpBert
from rpbert.models.tagger import TaggerOutput
from rpbert.modules.encoder import BertEncoder
from rpbert.types import Batch, Post, Prediction, VisualTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers.models.bert.modeling_bert import BertLayer

    from rpbert.inference import PostLike


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A prediction with the attention that led to it; none without usable evidence, or where the
    system is no RpBERT on a BERT or RoBERTa."""

    post: Post
    prediction: Prediction
    attention: NDArray[np.float64] | None = None
    """A of each word on the grid of blocks, row 0 at the top of the image; other evidence is one
    row. Shape: (W, rows, columns)."""
    boxes: NDArray[np.float32] | None = None
    """x0, y0, x1, y1 of each block or token, in [0, 1] from the upper left corner (blocks, 4)."""
    pieces: tuple[str, ...] | None = None  # of a text, where the tokens are these

    @property
    def heat(self) -> NDArray[np.float64] | None:
        """a_j^v of every block: attention of all words (Eq. 11). Shape: (rows, columns)."""
        return None if self.attention is None else self.attention.sum(0)

    @property
    def s_tv(self) -> float | None:
        """S_TV (Eq. 10); None where there is no attention to sum."""
        return None if self.attention is None else float(self.attention.sum())

    @property
    def s_tv_per_word(self) -> float | None:
        """S_TV divided by the number of words W; 0 for a post without words."""
        return None if self.s_tv is None else self.s_tv / max(1, len(self.post.words))


def explain(tagger: Tagger, post: PostLike, relation: float | None = None) -> Explanation:
    """Tag a post and show where on its image the words look. `relation` is r in place of the
    model's own, which without propagation is 1; a post without a usable image keeps 0. Raises
    InputError: `post` is no post, r lies outside [0, 1], or r scales nothing in the system."""
    return explain_batch(tagger, [tagger.as_post(post)], relation)[0]


def explain_batch(
    tagger: Tagger, posts: Sequence[Post], relation: float | None = None
) -> list[Explanation]:
    """`explain` for several posts at once, in their order."""
    if relation is not None and not 0 <= relation <= 1:
        raise InputError("relation", f"{relation:g}", "a share of the image between 0 and 1")
    system, decoder = tagger.model.system, tagger.decoder
    seen: Sequence[dict[str, Any]] = [{}] * len(posts)
    with torch.inference_mode():
        batch = decoder.collator(posts).to(tagger.device)
        if isinstance(system, RpBert):
            output, shares, image = _attended(system, batch, relation)
            if shares is not None:
                seen = [
                    _seen(tagger, system, batch, post, shares[post], image)
                    for post in range(len(posts))
                ]
        elif relation is not None:
            name = tagger.model.options.system
            raise InputError("relation", f"a model of {name}", "one of rpbert, whose r can be set")
        else:
            output = decoder.system(batch)
        decoded = decoder.read(batch, output)
        if relation is not None and output.relation_score is not None:  # also where none is learnt
            scores = output.relation_score.tolist()
            decoded = [replace(d, relation=r) for d, r in zip(decoded, scores, strict=True)]
    return [
        Explanation(post, prediction_of(post, answer), **of_post)
        for post, answer, of_post in zip(posts, decoded, seen, strict=True)
    ]


class AttentionRecorder:
    """Encodes as `BertEncoder` does, and keeps how the text attends to the image."""

    shares: Tensor  # averaged over layers and heads; 0 where either is padding (S, L, V), float64

    def __init__(self, encoder: BertEncoder) -> None:
        self.encoder = encoder

    def __call__(self, text: Tensor, text_mask: Tensor, image: VisualTokens | None) -> Tensor:
        """Shapes: (S, L, H), (S, L), (S, V, H) → (S, L, H)."""
        longest = text_mask.shape[1]
        read = self.encoder.embedded(text, text_mask, image)
        if image is None:
            image = VisualTokens(text[:, :0], text_mask[:, :0], text[:, :0, :4])
        # `pack` puts visual token j of a row right after its text: at n + 2 + j.
        last, device = read.mask.shape[1] - 1, read.mask.device
        place = text_mask.sum(1, keepdim=True) + torch.arange(image.mask.shape[1], device=device)
        place = place.clamp(max=last)[:, None, :].expand(-1, longest, -1)  # (S, L, V)
        self.shares = torch.zeros(place.shape, dtype=torch.float64, device=device)
        for layer in self.encoder.bert.encoder.layer:
            hidden = read.hidden
            over_heads = attention(layer, hidden[:, :longest], hidden, read.keys).double().mean(1)
            self.shares += over_heads.gather(2, place) / len(self.encoder.blocks)
            read = read._replace(hidden=self.encoder.compute(layer, hidden.shape[1], read))
        self.shares *= text_mask[:, :, None] & image.mask[:, None, :]
        return read.hidden[:, :longest]


def attention(layer: BertLayer, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """Att^(l,h), the probabilities with which `queries` read `hidden` in a layer of BERT (Vaswani
    et al. 2017, Eq. 1); `mask` as of `bert_layer`.
    Shape: (S, Q, H), (S, N, H), (S, N) → (S, heads, Q, N)."""
    own = layer.attention.self
    heads, width = own.num_attention_heads, own.attention_head_size
    query = own.query(queries).unflatten(2, (heads, width)).transpose(1, 2)
    key = own.key(hidden).unflatten(2, (heads, width)).transpose(1, 2)
    scores: Tensor = query @ key.transpose(2, 3) / width**0.5
    keys = mask[:, None, None, :]
    if mask.dtype is torch.bool:
        return scores.masked_fill(~keys, float("-inf")).softmax(-1)
    return (scores + keys).softmax(-1)


def _attended(
    system: RpBert, batch: Batch, relation: float | None
) -> tuple[TaggerOutput, Tensor | None, VisualTokens]:
    """The second pass, A (B, W, V) where the encoder is a BERT, and the visual tokens."""
    text, image = system.encoder.embed(batch.subwords), system.blocks(batch)
    if relation is None:
        score = system.relation_score(batch, text, image)
    else:
        score = relation * image.mask.any(2).to(text.dtype)
    if not isinstance(system.encoder, BertEncoder):
        return system.read(batch, text, image, score, system.encoder), None, side_by_side(image)
    recorder = AttentionRecorder(system.encoder)
    output = system.read(batch, text, image, score, recorder)
    posts, words = batch.forms.shape
    counted = batch.word_of_subword >= 0
    shares = recorder.shares.new_zeros(posts * words, recorder.shares.shape[2])
    shares.index_add_(0, batch.word_of_subword[counted], recorder.shares[counted])
    return output, shares.view(posts, words, shares.shape[1]).cpu(), side_by_side(image)


def _seen(
    tagger: Tagger, system: RpBert, batch: Batch, post: int, shares: Tensor, image: VisualTokens
) -> dict[str, Any]:
    """What an `Explanation` holds of one post's attention (W, V); nothing without any token."""
    tokens = int(image.mask[post].sum())
    if not tokens:
        return {}
    first = batch.evidence[0]
    images = first.of_post[post]
    images = images[images >= 0]
    columns = (system.evidence.columns if len(images) == 1 else None) or tokens
    words = len(batch.posts[post].words)
    grid = shares[:words, :tokens].reshape(words, tokens // columns, columns)
    pieces = None
    if system.evidence.is_text and tagger.model.tokenizer is not None:
        ids = first.values[images][first.mask[images]].tolist()
        pieces = tuple(tagger.model.tokenizer.convert_ids_to_tokens(ids))
    return {
        "attention": grid.numpy(),
        "boxes": image.boxes[post, :tokens].cpu().numpy(),
        "pieces": pieces,
    }
