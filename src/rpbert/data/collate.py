"""Posts to a `Batch`: words to sub-words, characters and tags; evidence by its own reader."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from rpbert.data.images import Preprocessing
from rpbert.data.vocabulary import MAX_WORD_LENGTH, PADDING, Vocabulary
from rpbert.errors import InputError
from rpbert.types import TEXTS, Batch, EvidenceInput, ImageStatus, Post

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Item = TypeVar("Item")
Read: TypeAlias = tuple[tuple[EvidenceInput, ...], tuple[ImageStatus, ...]]
"""The evidence of posts, an entry a kind, and the status of each post's images."""

HELD_BYTES = 128 * 2**20
"""Bytes of images and characters of texts that a window of posts may hold before it is complete."""
PADDED = 2**14  # words or sub-words of a batch with its padding, unless it is a single post


class Row(NamedTuple):
    """One encoder row of a post: sub-word ids, and the word each one counts for (-1: none)."""

    ids: list[int]
    words: list[int]


class TokenizerSubwords:
    """Rows ``[CLS] T [SEP]`` (Eq. 1) of at most `max_length` by WordPiece, BPE or SentencePiece.
    Each word is split by itself, as after a space; a word without any piece becomes [UNK]. A post
    longer than the encoder is read in rows that overlap by half, and each word counts in the row
    where the nearer edge is farthest; a word longer than half a row counts piece by piece.
    Raises InputError: the tokenizer has no [CLS] or [SEP]."""

    remembered = 2**25  # bytes, about, of words and their pieces; then the memory starts afresh

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        opening, closing = tokenizer.cls_token_id, tokenizer.sep_token_id
        if opening is None or closing is None:
            found = f"{type(tokenizer).__name__} without [CLS] and [SEP]"
            raise InputError("tokenizer", found, "that of a text encoder")
        self.tokenizer = tokenizer
        self.opening, self.closing = opening, closing
        self.unknown = closing if tokenizer.unk_token_id is None else tokenizer.unk_token_id
        self.room = max_length - 2
        # Byte-level BPE has other pieces for a word after a space than for one that begins a text.
        alone, after = tokenizer(["a", "a a"], add_special_tokens=False)["input_ids"]
        self._lead = "" if after[len(after) // 2 :] == alone else " "
        # Several threads may read one dictionary: it only grows, and a full one is left to them.
        self._known: dict[str, list[int]] = {}
        self._held = 0

    def rows(self, words: Sequence[str]) -> list[Row]:
        """One row, or several that overlap; every sub-word counts in exactly one of them."""
        pieces = self.pieces(words)
        if sum(map(len, pieces)) <= self.room:
            return [self._row(list(enumerate(pieces)), range(len(words)), range(len(words)))]
        # No part of a word fills more than half a row, so that windows always advance.
        most = self.room // 2
        parts = [
            (w, ids[i : i + most]) for w, ids in enumerate(pieces) for i in range(0, len(ids), most)
        ]
        windows = _windows([len(ids) for _, ids in parts], self.room)
        return [self._row(parts, window, counted) for window, counted in windows]

    def text(self, text: str) -> list[int]:
        """The sub-words of another text, whole and without special tokens."""
        # A lone surrogate is no character that a tokenizer takes.
        clean = text.encode("utf-8", "replace").decode()
        ids: list[int] = self.tokenizer(clean, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def around_second(self) -> tuple[list[int], list[int]]:
        """What the tokenizer sets before and after the second sentence of a pair: RoBERTa's has one
        [SEP] more than BERT's."""
        alone, one = self.text("a"), self.tokenizer("a")["input_ids"]
        rest: list[int] = self.tokenizer("a", "a")["input_ids"][len(one) :]
        before = next((i for i in range(len(rest)) if rest[i:][: len(alone)] == alone), 0)
        return rest[:before], rest[before + len(alone) :] or [self.closing]

    def _row(self, parts: list[tuple[int, list[int]]], window: range, counted: range) -> Row:
        ids, words = [self.opening], [-1]
        for place in window:
            word, pieces = parts[place]
            ids += pieces
            words += [word if place in counted else -1] * len(pieces)
        return Row([*ids, self.closing], [*words, -1])

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """The sub-words of each word, at least one."""
        if self._held > self.remembered:
            self._known, self._held = {}, 0
        known = self._known
        new = [word for word in dict.fromkeys(words) if word not in known]
        if not new:
            return [known[word] for word in words]
        clean = [self._lead + word.encode("utf-8", "replace").decode() for word in new]
        # Some tokenizers take the square of a word's length, and nobody's word is that long.
        slices = [
            (row, word[start : start + MAX_WORD_LENGTH])
            for row, word in enumerate(clean)
            for start in range(0, max(len(word), 1), MAX_WORD_LENGTH)
        ]
        encoded = self.tokenizer([part for _, part in slices], add_special_tokens=False)
        found: list[list[int]] = [[] for _ in new]
        for (row, _), ids in zip(slices, encoded["input_ids"], strict=True):
            found[row] += ids
        split = {word: ids or [self.unknown] for word, ids in zip(new, found, strict=True)}
        kept = {word: ids for word, ids in split.items() if len(word) < MAX_WORD_LENGTH}
        known.update(kept)
        self._held += sum(300 + 4 * len(w) + 36 * len(ids) for w, ids in kept.items())
        return [split.get(word) or known[word] for word in words]


def _windows(lengths: Sequence[int], room: int) -> list[tuple[range, range]]:
    """Windows of at most `room` that overlap by half: the parts of each, and those it counts."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    count = len(lengths)
    windows: list[range] = []
    first = 0
    while not windows or windows[-1].stop < count:
        if windows:
            middle = int(np.searchsorted(starts, starts[first] + room // 2, side="right")) - 1
            first = max(middle, first + 1)
        last = int(np.searchsorted(starts, starts[first] + room, side="right")) - 1
        windows.append(range(first, last))
    cuts = [(after.start + before.stop + 1) // 2 for before, after in pairwise(windows)]
    counted = [range(a, b) for a, b in pairwise([0, *cuts, count])]
    return list(zip(windows, counted, strict=True))


class EvidenceReader(Protocol):
    """What a `Collator` needs of `rpbert.evidence.base.EvidenceReader`."""

    wanted: str

    @property
    def preprocessing(self) -> Preprocessing | None: ...  # noqa: D102

    def has(self, post: Post) -> bool: ...  # noqa: D102

    def lengths(self, posts: Sequence[Post]) -> list[int]: ...  # noqa: D102

    def notes(self, posts: Sequence[Post]) -> list[str]: ...  # noqa: D102

    def split_by_source(self, post: Post) -> list[Post]: ...  # noqa: D102

    def read(self, posts: Sequence[Post]) -> Read: ...  # noqa: D102


class Collator:
    """Packs posts into a `Batch` for one model; `subwords` is None without a text encoder."""

    def __init__(
        self, vocabulary: Vocabulary, subwords: TokenizerSubwords | None, evidence: EvidenceReader
    ) -> None:
        self.vocabulary = vocabulary
        self.subwords = subwords
        self.evidence = evidence

    def with_gold(self, posts: Sequence[Post]) -> Batch:
        """Pack posts with the tags and relations that all of them have, for training.
        Raises InputError: a gold tag is not in the model's tag set."""
        batch = self(posts)
        tags = None
        if all(post.tags is not None for post in posts):
            tags = pad([self._tags(post) for post in posts], batch.forms.shape[1])
        known = [post.relation for post in posts if post.relation is not None]
        relations = torch.tensor(known, dtype=torch.float32) if len(known) == len(posts) else None
        return replace(batch, tags=tags, relations=relations)

    def lengths(self, posts: Sequence[Post]) -> list[int]:
        """How many tokens there are to compute for each post, to batch equals together."""
        read, beside = self.subwords, self.evidence.lengths(posts) or [0] * len(posts)
        if read is None:
            return [len(post.words) + more for post, more in zip(posts, beside, strict=True)]
        read.pieces([word for post in posts for word in post.words])  # all new at once
        own = [sum(map(len, read.pieces(post.words))) for post in posts]
        return list(map(sum, zip(own, beside, strict=True)))

    def __call__(self, posts: Sequence[Post]) -> Batch:
        """Pack what a system may see of posts, in their order; gold labels are left out."""
        width = max((1, *(len(post.words) for post in posts)))
        forms = {form: i for i, form in enumerate(dict.fromkeys(w for p in posts for w in p.words))}
        evidence, status = self.evidence.read(posts)
        vocabulary = self.vocabulary
        return Batch(
            posts=tuple(posts),
            **self._subwords(posts, width),
            word_mask=_mask([len(post.words) for post in posts], width),
            forms=pad([[forms[word] for word in post.words] for post in posts], width),
            form_vectors=torch.tensor([vocabulary.word_row(form) for form in forms]).long(),
            form_characters=pad([vocabulary.character_rows(form) for form in forms]),
            evidence=evidence,
            image_status=status,
        )

    def _subwords(self, posts: Sequence[Post], width: int) -> dict[str, Any]:
        rows: list[tuple[int, Row]] = []  # each with the number of its post
        first_row: list[int] = []
        for index, post in enumerate(posts):
            first_row.append(len(rows))
            found = self.subwords.rows(post.words) if self.subwords else [Row([], [])]
            rows += [(index, row) for row in found]
        words = [[w if w < 0 else i * width + w for w in row.words] for i, row in rows]
        return {
            "subwords": pad([row.ids for _, row in rows]),
            "subword_mask": _mask([len(row.ids) for _, row in rows]),
            "word_of_subword": pad(words, filler=-1),
            "post_of_row": torch.tensor([index for index, _ in rows], dtype=torch.long),
            "first_row": torch.tensor(first_row, dtype=torch.long),
        }

    def _tags(self, post: Post) -> list[int]:
        try:
            return [self.vocabulary.tag_rows[tag] for tag in post.tags or ()]
        except KeyError as unknown:
            expected = f"one of the model's tags {' '.join(self.vocabulary.tags)}"
            found = f"tag {unknown.args[0]}"
            raise InputError(post.origin or post.id, found, expected) from None


def pad(rows: Sequence[Sequence[int]], width: int | None = None, filler: int = PADDING) -> Tensor:
    """Rows of different lengths as one tensor. Shape: (rows, longest)."""
    if width is None:
        width = max(map(len, rows), default=0)
    padded = np.full((len(rows), width), filler, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def _mask(lengths: Sequence[int], width: int | None = None) -> Tensor:
    """True on the real entries of rows of these lengths. Shape: (rows, longest)."""
    width = max(lengths, default=0) if width is None else width
    return torch.arange(width)[None, :] < torch.tensor(lengths, dtype=torch.long)[:, None]


def batches(posts: Iterable[Post], size: int) -> Iterator[list[Post]]:
    """Consecutive lists of at most `size` posts."""
    remaining = iter(posts)
    while batch := list(islice(remaining, size)):
        yield batch


def windows(posts: Iterable[Post], size: int) -> Iterator[list[Post]]:
    """Consecutive lists of 16 batches of `size` posts, or of `HELD_BYTES` in images and texts."""
    window: list[Post] = []
    held, fault = 0, None
    try:
        for post in posts:
            window.append(post)
            held += len(post.text)
            for image in post.images:
                held += len(image.image) if isinstance(image.image, bytes) else 0
                held += sum(len(getattr(image, name) or "") for name in TEXTS)
            if len(window) == 16 * size or held >= HELD_BYTES:
                yield window
                window, held = [], 0
    except Exception as error:  # of `posts`, raised behind those that were read
        fault = error
    if window:
        yield window
    if fault is not None:
        raise fault


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Batches of posts of similar length, as indices: at most `size` posts each, and `PADDED` words
    with its padding unless it is a single post."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[index]  # of the batch, as it comes last
        if not groups or len(groups[-1]) == size or (len(groups[-1]) + 1) * longest > PADDED:
            groups.append([])
        groups[-1].append(index)
    return groups


def shuffled_batches(
    posts: Sequence[Post], size: int, seed: str, lengths: Sequence[int] | None = None
) -> list[list[Post]]:
    """All posts once, in batches of similar length and random order; the seed decides it all.
    Lengths (None: of words) are sorted only within 16 batches: a batch stays a random sample."""
    draw = random.Random(seed)
    lengths = lengths or [len(post.words) for post in posts]
    order = list(range(len(posts)))
    draw.shuffle(order)
    bucketed: list[Post] = []
    for window in range(0, len(order), 16 * size):
        alike = sorted(order[window : window + 16 * size], key=lengths.__getitem__)
        bucketed += [posts[index] for index in alike]
    groups = list(batches(bucketed, size))
    draw.shuffle(groups)
    return groups


def ahead(items: Iterable[Item], count: int = 1) -> Iterator[Item]:
    """The same items in order, `count` of them made by a thread before they are asked for; its
    errors are raised in their place, and it stops where the consumer stops."""
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1, "ahead")
    waiting = deque(pool.submit(next, iterator, end) for _ in range(count))
    try:
        while True:
            waiting.append(pool.submit(next, iterator, end))
            item = waiting.popleft().result()
            if item is end:
                return
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
