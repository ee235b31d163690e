"""Packing posts: every word once, nothing lost; batches ahead of their use."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.collate import (
    PADDED,
    Collator,
    TokenizerSubwords,
    _windows,
    ahead,
    batches,
    by_length,
    shuffled_batches,
    windows,
)
from rpbert.data.images import Preprocessing
from rpbert.data.vocabulary import MAX_WORD_LENGTH, Vocabulary, learn_wordpieces, tag_set
from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader, ImageReader
from rpbert.types import Post
from tests.conftest import picture

VOCABULARY = Vocabulary(tag_set(["LOC", "PER"]), tuple("abc"), ("ab", "c"))
TOKENIZER = learn_wordpieces([["ab", "abc", "cab", "bca"]] * 4, 100)
COLLATE = Collator(VOCABULARY, None, EvidenceReader())


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
def test_windows_give_words_context_on_both_sides(words: int) -> None:
    """Inside a long post no word stands at the edge of the window that it counts in."""
    for window, counts in _windows([1] * words, 40):
        assert window.start == 0 or counts.start - window.start >= 9
        assert window.stop == words or window.stop - counts.stop >= 9


def test_sub_words_of_a_post_are_those_of_the_tokenizer() -> None:
    words = ["ab", "cab", "zz", "abc"]
    (row,) = TokenizerSubwords(TOKENIZER, 64).rows(words)
    whole = TOKENIZER(words, is_split_into_words=True)
    assert row.ids == whole["input_ids"]
    assert row.words == [-1 if w is None else w for w in whole.word_ids()]
    nothing = ["", "\u200d", "\ufe0f", "\u0092", "\u00ad"]
    (row,) = TokenizerSubwords(TOKENIZER, 64).rows(nothing)
    assert row.ids[1:-1] == [TOKENIZER.unk_token_id] * len(nothing)
    assert row.words[1:-1] == list(range(len(nothing)))


@given(st.lists(st.text(max_size=8), max_size=120))
def test_every_word_counts_in_exactly_one_row(words: list[str]) -> None:
    rows = TokenizerSubwords(TOKENIZER, 24).rows(words)
    homes = Counter(word for row in rows for word in set(row.words) - {-1})
    assert homes == Counter(range(len(words)))
    assert all(len(row.ids) <= 24 for row in rows)


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


def test_images_are_decoded_once_and_failures_have_no_tokens(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    sources = [tmp_path / "a.png", tmp_path / "a.png", tmp_path / "no.jpg", tmp_path / "broken.jpg"]
    posts = [post("ab").with_(image=image) for image in [*sources, None]]
    reader = EvidenceReader([ImageReader(Preprocessing(32), 2**20)])
    batch = Collator(VOCABULARY, None, reader)(posts)
    assert batch.image_status == ("used", "used", "missing", "unreadable", "none")
    (pixels,) = batch.evidence
    assert pixels.of_post.flatten().tolist() == [0, 0, -1, -1, -1]
    assert pixels.values.shape == (1, 3, 32, 32)


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 9), st.text(max_size=3))
def test_shuffled_batches_hold_every_post_once(lengths: list[int], size: int, seed: str) -> None:
    posts = [Post.from_words(str(i), ("w",) * n) for i, n in enumerate(lengths)]
    groups = shuffled_batches(posts, size, seed)
    other = shuffled_batches(posts, size, seed, [-len(post.words) for post in posts])
    for found in (groups, other):
        assert sorted(p.id for g in found for p in g) == sorted(p.id for p in posts)
    assert all(len(group) <= size for group in groups)
    assert groups == shuffled_batches(posts, size, seed)


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 9))
def test_batches_of_similar_length_are_bounded_in_posts_and_in_words(
    lengths: list[int], size: int
) -> None:
    groups = by_length(lengths, size)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert [lengths[i] for group in groups for i in group] == sorted(lengths)
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) <= size
        assert len(group) * longest <= PADDED or len(group) == 1
    for group, following in pairwise(groups):  # none is cut without need
        one_more = (len(group) + 1) * lengths[following[0]]
        assert len(group) == size or one_more > PADDED


def test_batches_keep_the_order() -> None:
    posts = [Post.from_words(str(i), ()) for i in range(7)]
    assert ["".join(p.id for p in b) for b in batches(posts, 3)] == ["012", "345", "6"]


def test_windows_are_bounded_in_posts_in_bytes_and_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpbert.data.collate.HELD_BYTES", 100)
    sizes = [0] * 40 + [60, 60, 10, 200, 1, 1]
    posts = [post("a").with_(image=bytes(n) if n else None) for n in sizes]
    found = [[len(p.image or b"") for p in window] for window in windows(iter(posts), 2)]  # type: ignore[arg-type]
    assert found == [[0] * 32, [0] * 8 + [60, 60], [10, 200], [1, 1]]
    posts = [post("a" * 60), post("b" * 60), post("c")]
    assert [len(window) for window in windows(iter(posts), 2)] == [2, 1]


def test_a_word_of_any_length_takes_no_more_than_a_long_one() -> None:
    """Of a word that nobody writes, the beginning and the end are read."""
    batch = COLLATE([post("ab" + "x" * 1_000_000 + "ba", "ab")])
    assert batch.form_characters.shape == (2, MAX_WORD_LENGTH)
    a, b, x = (VOCABULARY.character_rows(sign)[0] for sign in "abx")
    assert batch.form_characters[0].tolist() == [a, b, *[x] * (MAX_WORD_LENGTH - 4), b, a]


def test_words_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    subwords = TokenizerSubwords(TOKENIZER, 64)
    monkeypatch.setattr(TokenizerSubwords, "remembered", 10)
    for i in range(100):
        words = (f"word{i}", "ab", "x" * 5000)
        assert subwords.rows(words) == TokenizerSubwords(TOKENIZER, 64).rows(words)
    assert len(subwords._pieces) <= 12
    assert max(map(len, subwords._pieces)) < MAX_WORD_LENGTH


def test_lengths_are_what_the_encoder_reads_of_a_post() -> None:
    posts = [post("ab", "cab", "zz"), post(), post("abc")]
    subwords = TokenizerSubwords(TOKENIZER, 64)
    counts = Collator(VOCABULARY, subwords, EvidenceReader()).lengths(posts)
    assert counts == [len(subwords.rows(p.words)[0].ids) - 2 for p in posts]
    assert COLLATE.lengths(posts) == [3, 0, 1]


def producers() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("waiting", [1, 3, 100])
def test_items_made_ahead_keep_their_order(waiting: int) -> None:
    for items in (list(range(50)), [], [None, 0, None]):
        assert list(ahead(items, waiting)) == items
    assert producers() == 0


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def faulty() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    items = ahead(faulty())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)
    assert producers() == 0


def test_the_next_item_is_made_before_it_is_asked_for_and_none_after_the_end() -> None:
    made = threading.Semaphore(0)
    taken = []

    def endless() -> Iterator[int]:
        for number in count():
            taken.append(number)
            made.release()
            yield number

    items = ahead(endless())
    assert next(items) == 0
    assert made.acquire(timeout=30)  # of the item taken
    assert made.acquire(timeout=30)  # of the one after it
    items.close()  # type: ignore[attr-defined]
    assert producers() == 0
    assert len(taken) <= 4
