"""Raw post text → words with exact character offsets, in the two styles of the data sets.
Twitter-2015 keeps ``#`` and ``@`` on their word and hyphens within theirs; Twitter-2017 splits all
three off. Both split an apostrophe off (``Obama ' s``). A tagger reads raw text in the style it was
trained on (`marks_style`). HTML entities and escaped line breaks, which collections of posts keep,
are read as what they stand for, and offsets stay those of the text as given: ``AT&amp;T`` is the
words ``AT``, ``&`` and ``T``. Each other character that is not whitespace belongs to exactly one
word, in linear time. An emoji is one word with its skin tone, variation selector and joined parts.
In scripts without spaces a character is a word, unless the training data has longer words of them.
"""

from __future__ import annotations

import html
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

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
_JOINED = (_URL, _KEYCAP, _FLAG, _EMOTICON, _MARKED, _NUMBER, _HYPHENATED, _SIGN)
_APART = (_URL, _KEYCAP, _FLAG, _EMOTICON, _NUMBER, _WORD, _SIGN)
# Of Unicode 16: Han, kana and Bopomofo; Thai and Lao; Burmese; Khmer. Digits are left out.
_SCRIPTS = (
    r"\u2E80-\u2FDF\u3005-\u3007\u3021-\u3029\u3041-\u312F\u31A0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF"
    r"\uF900-\uFAFF\uFF66-\uFF9F\U00020000-\U000323AF"
    r"\u0E01-\u0E3A\u0E40-\u0E4E\u0E81-\u0ECE\u0EDC-\u0EDF\u1000-\u103F\u104A-\u108F\u1780-\u17D3"
)
_UNSPACED = re.compile(rf"[{_SCRIPTS}]")
# An entity, however often it was escaped; a line break; a short link that has no blank before it.
_ESCAPED = re.compile(
    r"&(?:amp;)*(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][0-9A-Za-z]{1,31});"
    r"|(?<!\\)\\[nrt]|(?<=\S)(?=https?://t\.co/)"
)


@dataclass(frozen=True)
class WordSplitter:
    """Cuts a text into words. "joined": ``#NBA``, ``@user``, ``$AAPL`` and ``all-time`` are one
    word; "apart": ``#`` and ``NBA``, ``all`` ``-`` ``time`` are several."""

    name: str  # joined or apart
    kinds: tuple[str, ...]  # patterns of a word, of which the first that fits wins
    characters: bool = True  # in scripts without spaces, such as Chinese or Thai, each is a word

    def split(self, text: str) -> list[tuple[int, int]]:
        """The ``(start, end)`` of each word in characters of `text`, ascending and disjoint."""
        if _ESCAPED.search(text):
            plain, starts = _unescaped(text)
            return [(starts[start], starts[end]) for start, end in self._split(plain)]
        return self._split(text)

    def words(self, text: str, spans: Iterable[tuple[int, int]]) -> tuple[str, ...]:
        """The words that a model reads at the `spans` of a text."""
        return tuple(_unescaped(text[start:end])[0] for start, end in spans)

    def _split(self, text: str) -> list[tuple[int, int]]:
        spans = [match.span() for match in _pattern(self.kinds).finditer(text)]
        if not self.characters or text.isascii():
            return spans
        pattern = _unspaced()
        return [part.span() for start, end in spans for part in pattern.finditer(text, start, end)]


SPLITTERS = {
    "joined": WordSplitter("joined", _JOINED),
    "apart": WordSplitter("apart", _APART),
    "joined-runs": WordSplitter("joined", _JOINED, characters=False),
    "apart-runs": WordSplitter("apart", _APART, characters=False),
}
"""By the style of a training set: that of its marks, and whether scripts without spaces come as
words of several characters."""


def _unescaped(text: str) -> tuple[str, list[int]]:
    """The text that was escaped, and where each of its characters, and its end, is in `text`."""
    parts: list[str] = []
    starts: list[int] = []
    position = 0
    for match in _ESCAPED.finditer(text):
        sign = match[0] if match[0].startswith("&") else " "
        for _ in range(match[0].count("&amp;") + 1):
            sign = html.unescape(sign)
        if len(sign) == 1:  # else it is no entity, or one of two characters
            parts += [text[position : match.start()], sign]
            starts += range(position, match.start() + 1)
            position = match.end()
    return "".join([*parts, text[position:]]), [*starts, *range(position, len(text) + 1)]


@cache
def _unspaced() -> re.Pattern[str]:
    """A character of a script without spaces with its marks, or a run without any."""
    one = rf"[#@＃＠]?[{_SCRIPTS}][{_combining_marks()}]*"
    return re.compile(rf"{one}|[^{_SCRIPTS}]+")


@cache
def _pattern(kinds: tuple[str, ...]) -> re.Pattern[str]:
    marks = _combining_marks()
    # Soft hyphen, zero-width joiner and non-joiner occur inside words and do not end them.
    in_word = rf"[\w{marks}\u00AD\u200C\u200D]"
    return re.compile("|".join(kinds).replace("{in_word}", in_word).replace("{marks}", marks))


@cache
def _combining_marks() -> str:
    """All combining marks as the inside of a character class; `re` knows no such class."""
    marks = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    known = frozenset(marks)
    first = (chr(c) for c in marks if c - 1 not in known)
    last = (chr(c) for c in marks if c + 1 not in known)
    return "".join(f"{start}-{end}" for start, end in zip(first, last, strict=True))


def align(words: Sequence[str], text: str) -> list[tuple[int, int]]:
    """The ``(start, end)`` of each of `words` in `text`, up to the first that is not found.
    The first occurrence after the word before finds an alignment wherever there is one; an empty
    word is at the end of the one before."""
    spans, position = [], 0
    for word in words:
        start = text.find(word, position)
        if start < 0:
            break
        position = start + len(word)
        spans.append((start, position))
    return spans


def marks_of(post: Post) -> tuple[int, int]:
    """How many ``#`` and ``@`` of a post begin a longer word, and how many are words alone."""
    marked = [len(word) > 1 for word in post.words if word.startswith(("#", "@"))]
    return sum(marked), len(marked) - sum(marked)


def style_of(joined: int, apart: int) -> str:
    """The style that the summed `marks_of` posts tell, ``joined`` where neither prevails."""
    return "apart" if apart > joined else "joined"


def marks_style(posts: Iterable[Post]) -> str:
    """The style a training set is written in, as a key of `SPLITTERS`: what prevails in it."""
    joined = apart = runs = 0
    pattern = _unspaced()
    for post in posts:
        marks = marks_of(post)
        joined, apart = joined + marks[0], apart + marks[1]
        for word in post.words:
            if not word.isascii() and _UNSPACED.match(word):
                runs += 1 if len(pattern.findall(word)) > 1 else -1
    return style_of(joined, apart) + ("-runs" if runs > 0 else "")


ENOUGH_MARKS = 20  # marks that are seen before `MarksWatch` warns
OTHER_SHARE = 0.75  # share of them that has to be of the other style
_DESCRIPTION = {
    "joined": "begin a longer word, as in Twitter-2015",
    "apart": "stand apart, as in Twitter-2017",
}


class SplittingWarning(UserWarning):
    """Posts are split in another way than those a model was trained on."""


class MarksWatch:
    """Counts marks over all posts, and warns once where they are not of the model's `style`: posts
    that come as words may be split in another way than the model's training posts."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.marks = self.others = 0
        self.warned = False

    def see(self, posts: Iterable[Post]) -> None:
        """Count the marks of some posts."""
        for joined, apart in map(marks_of, posts) if not self.warned else ():
            self.marks += joined + apart
            self.others += joined if self.style == "apart" else apart
        if self.warned or self.marks < ENOUGH_MARKS or self.others <= OTHER_SHARE * self.marks:
            return
        self.warned = True
        other = "joined" if self.style == "apart" else "apart"
        warnings.warn(
            f"of {self.marks} # and @ so far {self.others} {_DESCRIPTION[other]}; those of the "
            f"model's training posts {_DESCRIPTION[self.style]}: give the raw text, or words that "
            "are split so",
            SplittingWarning,
            stacklevel=2,
        )
