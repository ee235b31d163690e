"""Packing posts: every word once, nothing lost; batches ahead of their use."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.collate import (
    Collator,
    TokenizerSubwords,
    _windows,
    ahead,
    batches,
    by_length,
    shuffled_batches,
    windows,
)
from rpbert.data.vocabulary import MAX_WORD_LENGTH, Vocabulary, learn_wordpieces, tag_set
from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader
from rpbert.types import Post

VOCABULARY = Vocabulary(tag_set(["LOC", "PER"]), tuple("abc"), ("ab", "c"))
TOKENIZER = learn_wordpieces([["ab", "abc", "cab", "bca"]] * 4, 100)
COLLATE = Collator(VOCABULARY, None, EvidenceReader())
MIB = 2**20


def post(*words: str) -> Post:
    return Post.from_words("p", words)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=200), st.integers(20, 40))
def test_windows_count_every_word_once_and_fit(lengths: list[int], room: int) -> None:
    found = _windows(lengths, room)
    assert [word for _, counts in found for word in counts] == list(range(len(lengths)))
    for window, counts in found:
        assert sum(lengths[word] for word in window) <= room
        assert set(counts) <= set(window)


@given(st.integers(41, 300))
def test_windows_overlap_by_half_and_words_count_far_from_edges(words: int) -> None:
    found = _windows([1] * words, 40)
    for window, counts in found:
        assert window.start == 0 or counts.start - window.start == 10
        assert window.stop == words or window.stop - counts.stop == 10
    assert len(found) == 1 + -(-(words - 40) // 20)


def test_sub_words_of_a_post_are_those_of_the_tokenizer() -> None:
    words = ["ab", "cab", "zz", "abc"]
    (row,) = TokenizerSubwords(TOKENIZER, 64).rows(words)
    whole = TOKENIZER(words, is_split_into_words=True)
    assert row.ids == whole["input_ids"]
    assert row.words == [-1 if w is None else w for w in whole.word_ids()]
    fits = TokenizerSubwords(TOKENIZER, len(row.ids))
    assert (len(fits.rows(words)), len(fits.rows([*words, "a"]))) == (1, 2)
    nothing = ["", "\u200d", "\ufe0f", "\u0092", "\u00ad"]
    other = copy.deepcopy(TOKENIZER)
    other.unk_token = None
    for tokenizer, unknown in ((TOKENIZER, TOKENIZER.unk_token_id), (other, other.sep_token_id)):
        (row,) = TokenizerSubwords(tokenizer, 64).rows(nothing)
        assert row.ids[1:-1] == [unknown] * len(nothing)
        assert row.words[1:-1] == list(range(len(nothing)))
    for token in ("cls_token", "sep_token"):
        other = copy.deepcopy(TOKENIZER)
        setattr(other, token, None)
        with pytest.raises(InputError, match="tokenizer"):
            TokenizerSubwords(other, 64)


def test_a_batch_holds_the_rows_of_its_posts() -> None:
    """Sub-words of each post by themselves; a word's place counts through the padded batch."""
    posts = [post("ab", "cab", "zz"), post(), post(*["abc", "ab"] * 9)]
    subwords = TokenizerSubwords(TOKENIZER, 16)
    collate = Collator(VOCABULARY, subwords, EvidenceReader())
    batch, each = collate(posts), [subwords.rows(p.words) for p in posts]
    rows = [row for of in each for row in of]
    longest = max(len(row.ids) for row in rows)
    assert batch.subwords.tolist() == [r.ids + [0] * (longest - len(r.ids)) for r in rows]
    assert batch.subword_mask.sum(1).tolist() == [len(row.ids) for row in rows]
    assert batch.first_row.tolist() == [0, 1, 2]
    assert batch.post_of_row.tolist() == [i for i, of in enumerate(each) for _ in of]
    assert len(rows) > len(posts)
    for place, i, row in zip(batch.word_of_subword, batch.post_of_row, rows, strict=True):
        expected = [w if w < 0 else 18 * int(i) + w for w in row.words]
        assert place.tolist() == expected + [-1] * (longest - len(expected))
    assert collate.lengths(posts[:2]) == [len(of[0].ids) - 2 for of in each[:2]]
    assert COLLATE.lengths(posts) == [3, 0, 18]
    assert COLLATE([post()]).word_mask.tolist() == [[False]]


def test_characters_and_words_of_each_distinct_word_once() -> None:
    batch = COLLATE([post("ab", "C", "ab"), post("ab", "zz")])
    assert batch.form_characters.tolist() == [[2, 3], [1, 0], [1, 1]]
    assert batch.form_vectors.tolist() == [2, 3, 1]  # known, known in lower case, unknown
    assert batch.forms.tolist() == [[0, 1, 0], [0, 2, 0]]
    assert batch.word_mask.tolist() == [[True] * 3, [True, True, False]]
    assert batch.to("meta").forms.device.type == "meta"


def test_gold_tags_and_relations_come_only_when_asked_for() -> None:
    known = post("ab").with_(tags=("B-PER",), relation=1.0)
    assert COLLATE([known]).tags is None
    gold = COLLATE.with_gold([known])
    assert gold.tags is not None
    assert gold.relations is not None
    assert gold.tags.tolist() == [[VOCABULARY.tag_rows["B-PER"]]]
    assert gold.relations.tolist() == [1.0]
    partial = COLLATE.with_gold([known, post("ab")])
    assert (partial.tags, partial.relations) == (None, None)
    with pytest.raises(InputError, match=r"^train.txt:3: found tag B-GPE"):
        COLLATE.with_gold([post("ab").with_(tags=("B-GPE",), origin="train.txt:3")])


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 9), st.text(max_size=3))
def test_shuffled_batches_hold_every_post_once(lengths: list[int], size: int, seed: str) -> None:
    posts = [Post.from_words(str(i), ("w",) * n) for i, n in enumerate(lengths)]
    groups = shuffled_batches(posts, size, seed)
    other = shuffled_batches(posts, size, seed, [-len(post.words) for post in posts])
    for found in (groups, other):
        assert sorted(p.id for g in found for p in g) == sorted(p.id for p in posts)
        assert all(len(group) <= size for group in found)
        if len(posts) <= 16 * size:  # of similar length
            alike = [sorted(len(p.words) for p in group) for group in found]
            assert all(a[-1] <= b[0] for a, b in pairwise(sorted(alike)))
    assert groups == shuffled_batches(posts, size, seed)


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 9))
def test_batches_of_similar_length_are_bounded_in_posts_and_in_words(
    lengths: list[int], size: int
) -> None:
    groups = by_length(lengths, size)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert [lengths[i] for group in groups for i in group] == sorted(lengths)
    for group in groups:
        assert len(group) <= size
        assert len(group) * max(lengths[i] for i in group) <= 16_384 or len(group) == 1
    for group, following in pairwise(groups):  # none is cut without need
        assert len(group) == size or (len(group) + 1) * lengths[following[0]] > 16_384


def test_batches_keep_the_order_and_are_filled() -> None:
    posts = [Post.from_words(str(i), ()) for i in range(7)]
    assert ["".join(p.id for p in b) for b in batches(posts, 3)] == ["012", "345", "6"]
    assert list(map(len, by_length([8_192] * 5, 3))) == [2, 2, 1]


def test_windows_are_bounded_in_posts_in_bytes_and_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [0] * 40 + [64 * MIB, 64 * MIB, MIB, 127 * MIB - 1, 1, 200 * MIB, 1, 1]
    posts = [post().with_(image=bytes(n) if n else None) for n in sizes]
    found = [[len(p.image or b"") for p in window] for window in windows(iter(posts), 2)]  # type: ignore[arg-type]
    assert found == [sizes[:32], sizes[32:42], sizes[42:45], sizes[45:46], sizes[46:]]
    monkeypatch.setattr("rpbert.data.collate.HELD_BYTES", 100)
    text = "a" * 50
    for full in (post(text), post().with_(caption=text), post().with_(image_text=text)):
        assert [len(window) for window in windows(iter([full] * 3), 2)] == [2, 1]


def test_a_word_of_any_length_takes_no_more_than_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a word that nobody writes, characters are those of both ends, and it is not remembered."""
    batch = COLLATE([post("ab" + "x" * 1_000_000 + "ba", "ab")])
    a, b, x = (VOCABULARY.character_rows(sign)[0] for sign in "abx")
    assert batch.form_characters[0].tolist() == [a, b, *[x] * (MAX_WORD_LENGTH - 4), b, a]
    subwords = TokenizerSubwords(TOKENIZER, 64)
    monkeypatch.setattr(TokenizerSubwords, "remembered", 3000)
    for i in range(100):
        words = (f"word{i}", "ab", "x" * MAX_WORD_LENGTH, "x" * 5000)
        assert subwords.rows(words) == TokenizerSubwords(TOKENIZER, 64).rows(words)
    assert len(subwords._known) <= 12
    assert max(map(len, subwords._known)) < MAX_WORD_LENGTH


def test_items_made_ahead_keep_their_order_and_an_error_its_place() -> None:
    made, taken = threading.Semaphore(0), []

    def numbers(end: int) -> Iterator[int]:
        for number in count():
            if number == end:
                raise ValueError("at the end")
            taken.append(number)
            made.release()
            yield number

    for waiting in (1, 100):
        assert list(ahead([None, 0, *range(50)], waiting)) == [None, 0, *range(50)]
    items = ahead(numbers(100))
    assert next(items) == 0
    assert made.acquire(timeout=30)  # of the item taken
    assert made.acquire(timeout=30)  # of the one after it
    items.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
    assert len(taken) <= 4
    items = ahead(numbers(1))
    assert next(items) == 0
    with pytest.raises(ValueError, match="at the end"):
        next(items)
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_threads_that_share_a_memory_of_words_find_what_they_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 4,000 distinct words, for which it starts afresh all the time."""
    subwords = TokenizerSubwords(TOKENIZER, 64)
    monkeypatch.setattr(TokenizerSubwords, "remembered", 3000)
    common = ("Ada", "at", "Como")
    posts = [(*common, f"w{i % 40}", f"v{i}") for i in range(4000)]
    expected = [TokenizerSubwords(TOKENIZER, 64).pieces(words) for words in posts[:40]]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(subwords.pieces, posts, chunksize=7))
    assert found[:40] == expected
    assert all(pieces[:3] == expected[0][:3] for pieces in found)
