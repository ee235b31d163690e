"""What a model remembers of its training data: tags, characters, words, how marks are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rpbert.data.labels import lenient_spans
from rpbert.types import Post

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PADDING, UNKNOWN = 0, 1  # rows of no word or character, and of one that is not listed
MAX_WORD_LENGTH = 200  # characters of a word that are read, half of them from its end


@dataclass(frozen=True)
class Vocabulary:
    """Tags, and the rows of the character and word tables; rows 0 and 1 are padding and unknown."""

    tags: tuple[str, ...]  # ``O`` first; the index of a tag is its row in the CRF
    characters: tuple[str, ...]  # those with their own row, from row 2 on
    words: tuple[str, ...]  # those with their own row, from row 2 on
    marks: str = "apart"  # how the training data has ``#`` and ``@``, see `rpbert.data.words`

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types."""
        return tuple(tag[2:] for tag in self.tags if tag.startswith("B-"))

    @cached_property
    def tag_rows(self) -> dict[str, int]:
        """The row of each tag."""
        return {tag: row for row, tag in enumerate(self.tags)}

    @cached_property
    def _character_rows(self) -> dict[str, int]:
        return {entry: row for row, entry in enumerate(self.characters, start=UNKNOWN + 1)}

    @cached_property
    def _word_rows(self) -> dict[str, int]:
        return {entry: row for row, entry in enumerate(self.words, start=UNKNOWN + 1)}

    def word_row(self, word: str) -> int:
        """The word's row, else that of its lower case, else `UNKNOWN`."""
        row = self._word_rows.get(word)
        return self._word_rows.get(word.lower(), UNKNOWN) if row is None else row

    def character_rows(self, word: str) -> list[int]:
        """The row of each character; of `MAX_WORD_LENGTH` of them, as batches are padded."""
        if len(word) > MAX_WORD_LENGTH:
            word = word[: MAX_WORD_LENGTH // 2] + word[-MAX_WORD_LENGTH // 2 :]
        return [self._character_rows.get(character, UNKNOWN) for character in word]


def entity_types(posts: Iterable[Post]) -> list[str]:
    """The entity types that occur, sorted."""
    return sorted({label for post in posts for label, _, _ in lenient_spans(post.tags or ())})


def tag_set(types: Sequence[str]) -> tuple[str, ...]:
    """``O`` and the IOB2 tags of the given entity types."""
    return ("O", *(f"{mark}-{label}" for label in types for mark in "BI"))


def frequent_characters(posts: Iterable[Post], at_least: int = 2) -> tuple[str, ...]:
    """Characters that occur at least so often, sorted; rarer ones train the unknown row."""
    counts = Counter(character for post in posts for word in post.words for character in word)
    return tuple(sorted(c for c, n in counts.items() if n >= at_least))


def frequent_words(posts: Iterable[Post], at_least: int = 2) -> tuple[str, ...]:
    """Lower-cased words that occur at least so often, sorted; rarer ones train the unknown row."""
    counts = Counter(word.lower() for post in posts for word in post.words)
    return tuple(sorted(word for word, n in counts.items() if n >= at_least))


def learn_wordpieces(texts: Iterable[Sequence[str]], size: int) -> PreTrainedTokenizerBase:
    """An uncased WordPiece tokenizer of at most `size`: all characters, then words by frequency.
    The trainer of the tokenizers library breaks ties at random; this depends on the texts alone."""
    from tokenizers import normalizers, pre_tokenizers
    from transformers import BertTokenizer

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(" ".join(text)))
    )
    characters = sorted({character for word in words for character in word})
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    entries += [f"##{character}" for character in characters]
    known = set(entries)
    recurring = [word for word, count in words.items() if count > 1 and word not in known]
    recurring.sort(key=lambda word: (-words[word], word))
    entries += recurring[: max(size - len(entries), 0)]
    return BertTokenizer(vocab={entry: row for row, entry in enumerate(entries)})
