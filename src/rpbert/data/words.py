"""Raw post text → words with exact character offsets, in the two styles of the data sets.

Twitter-2015 keeps ``#`` and ``@`` on their word and hyphens within theirs; Twitter-2017 sets all
three apart. Both set an apostrophe apart (``Obama ' s``), so that a possessive never hides the
end of a name. A tagger reads raw text in the style it was trained on (`marks_style`).

Whatever the text, each character that is not whitespace belongs to exactly one word, and the
time is linear in its length. An emoji stays one word with its skin tone, variation selector and
joined parts. In scripts that write no spaces a character is a word, as data sets of Chinese have
it, unless the training data has longer words of them.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import ClassVar, Protocol

from rpbert.types import Post

_URL = r"(?i:https?://|www\.)[!#-;=?-~]*[0-9A-Za-z/_=~#&+-]"
_KEYCAP = r"[0-9#*]\uFE0F?\u20E3"
_FLAG = r"[\U0001F1E6-\U0001F1FF]{2}"
_EYES_NOSE = r"[:;=]['’]?[-^]?"
_EMOTICON = (
    rf"{_EYES_NOSE}[()\[\]|*](?!\w)|(?<!\w){_EYES_NOSE}[DPpOo3/\\](?!\w)"
    r"|</?3(?!\w)|\^_+\^|-_+-"
)
_NUMBER = r"\d+(?:[.,:/]\d+)+{in_word}*"
_WORD = r"\w{in_word}*"
_HYPHENATED = _WORD + r"(?:[-‐‑]\w{in_word}*)*"
_MARKED = r"[#@＃＠]\w{in_word}*|\$[^\W\d]{in_word}*"
# One visible sign with all that modifies it: combining marks, skin tones, joined signs, tags.
_MODIFIERS = r"[{marks}\U0001F3FB-\U0001F3FF\U000E0020-\U000E007F]*"
_SIGN = rf"[^\w\s]{_MODIFIERS}(?:\u200D[^\w\s]{_MODIFIERS})*"
# Of Unicode 16: Han, kana and Bopomofo; Thai and Lao; Burmese; Khmer. Digits are left out.
_SCRIPTS = (
    r"\u2E80-\u2FDF\u3005-\u3007\u3021-\u3029\u3041-\u312F\u31A0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF"
    r"\uF900-\uFAFF\uFF66-\uFF9F\U00020000-\U000323AF"
    r"\u0E01-\u0E3A\u0E40-\u0E4E\u0E81-\u0ECE\u0EDC-\u0EDF\u1000-\u103F\u104A-\u108F\u1780-\u17D3"
)
_UNSPACED = re.compile(rf"[{_SCRIPTS}]")


class WordSplitter(Protocol):
    """Anything that cuts a text into words."""

    @property
    def name(self) -> str:
        """How it leaves ``#`` and ``@``."""

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word in characters of `text`, ascending and disjoint."""
        ...


class JoinedMarks:
    """Words as in Twitter-2015: ``#NBA``, ``@user``, ``$AAPL`` and ``all-time`` are one."""

    name: ClassVar[str] = "joined"

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word in characters of `text`, ascending and disjoint."""
        parts = (_URL, _KEYCAP, _FLAG, _EMOTICON, _MARKED, _NUMBER, _HYPHENATED, _SIGN)
        return [match.span() for match in _pattern(parts).finditer(text)]


class SplitMarks:
    """Words as in Twitter-2017: ``#`` and ``NBA``, ``@`` and ``user``, ``all`` ``-`` ``time``."""

    name: ClassVar[str] = "apart"

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word in characters of `text`, ascending and disjoint."""
        parts = (_URL, _KEYCAP, _FLAG, _EMOTICON, _NUMBER, _WORD, _SIGN)
        return [match.span() for match in _pattern(parts).finditer(text)]


class CharactersApart:
    """The words of another splitter, in which each character of a script without spaces is one.

    The scripts are Chinese, Japanese, Thai, Lao, Burmese and Khmer; a character keeps its
    combining marks, and ``#`` or ``@`` that stands on it. Within a word of several scripts each run
    of another script is a word.

    Args:
        words: cuts everything else.
    """

    def __init__(self, words: WordSplitter) -> None:
        self.words = words
        self.name = words.name

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word in characters of `text`, ascending and disjoint."""
        spans = self.words.split(text)
        if text.isascii():
            return spans
        pattern = _unspaced()
        return [part.span() for start, end in spans for part in pattern.finditer(text, start, end)]


SPLITTERS: dict[str, WordSplitter] = {
    "joined": CharactersApart(JoinedMarks()),
    "apart": CharactersApart(SplitMarks()),
    "joined-runs": JoinedMarks(),
    "apart-runs": SplitMarks(),
}
"""By the style of a training set: that of its marks, and whether scripts without spaces come as
words of several characters."""


def marks_style(posts: Iterable[Post]) -> str:
    """The style a training set is written in, as a key of `SPLITTERS`.

    Counts ``#`` and ``@`` that are words of their own against those that begin a longer word,
    ``joined`` where neither prevails; and words of scripts without spaces that are longer than a
    character against those that are not.
    """
    marks = runs = 0
    for post in posts:
        marks += marks_balance(post)
        runs += _runs_balance(post)
    return style_of(marks) + ("-runs" if runs > 0 else "")


def _runs_balance(post: Post) -> int:
    """How many more words of scripts without spaces have several characters than have one."""
    pattern = _unspaced()
    parts = [
        len(pattern.findall(word))
        for word in post.words
        if not word.isascii() and _UNSPACED.match(word)
    ]
    return sum(1 if count > 1 else -1 for count in parts)


def marks_balance(post: Post) -> int:
    """How many more ``#`` and ``@`` of a post begin a longer word than stand apart."""
    marked = [len(word) for word in post.words if word.startswith(("#", "@"))]
    return sum(1 if length > 1 else -1 for length in marked)


def style_of(balance: int) -> str:
    """The style that the summed `marks_balance` of posts tells."""
    return "apart" if balance < 0 else "joined"


def align(words: Sequence[str], text: str) -> list[tuple[int, int]]:
    """The ``(start, end)`` of each of `words` in `text`, up to the first that is not found.

    Each word is taken at its first occurrence after the one before, which finds an alignment
    wherever there is one. An empty word sits at the end of the one before.
    """
    spans, position = [], 0
    for word in words:
        start = text.find(word, position)
        if start < 0:
            break
        position = start + len(word)
        spans.append((start, position))
    return spans


@cache
def _unspaced() -> re.Pattern[str]:
    """A character of a script without spaces with its marks, or a run without any."""
    one = rf"[#@＃＠]?[{_SCRIPTS}][{_combining_marks()}]*"
    return re.compile(rf"{one}|[^{_SCRIPTS}]+")


@cache
def _pattern(parts: tuple[str, ...]) -> re.Pattern[str]:
    """`parts` as alternatives, the first that fits winning."""
    marks = _combining_marks()
    # Soft hyphen, zero-width joiner and non-joiner occur inside words and do not end them.
    in_word = rf"[\w{marks}\u00AD\u200C\u200D]"
    joined = "|".join(parts)
    return re.compile(joined.replace("{in_word}", in_word).replace("{marks}", marks))


@cache
def _combining_marks() -> str:
    """All combining marks as the inside of a character class; `re` knows no such class."""
    marks = (c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M")
    runs = [
        [c for _, c in run]
        for _, run in groupby(enumerate(marks), key=lambda pair: pair[1] - pair[0])
    ]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


ENOUGH = 20
"""Marks that are seen before anything is said."""
MOST = 0.75
"""Share of them that has to be of the other style."""

_SHOWN = {
    "joined": "begin a longer word, as in Twitter-2015",
    "apart": "stand apart, as in Twitter-2017",
}


class SplittingWarning(UserWarning):
    """Posts are split in another way than those a model was trained on."""


class MarksWatch:
    """Counts marks over all posts that pass, and warns once.

    Args:
        style: how the training posts were split, the name of one of `rpbert.data.words.SPLITTERS`.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.marks = self.others = 0
        self.told = False

    def see(self, posts: Iterable[Post]) -> None:
        """Count the marks of some posts."""
        if self.told:
            return
        marked = [word for post in posts for word in post.words if word[:1] in ("#", "@")]
        apart = marked.count("#") + marked.count("@")
        self.marks += len(marked)
        self.others += len(marked) - apart if self.style == "apart" else apart
        if self.marks >= ENOUGH and self.others > MOST * self.marks:
            self.told = True
            other = "joined" if self.style == "apart" else "apart"
            warnings.warn(
                f"of {self.marks} # and @ so far {self.others} {_SHOWN[other]}; those of the "
                f"model's training posts {_SHOWN[self.style]}: give the raw text, or words that "
                "are split so",
                SplittingWarning,
                stacklevel=2,
            )
