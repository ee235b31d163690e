"""The words of made posts: a sentence with its names, framed and mistyped as tweets are."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import NamedTuple

from rpbert.synthetic import phrases
from rpbert.synthetic.phrases import LABELS

HASHTAG = 0.08  # chance that a name stands in a hashtag
TYPO, ELONGATED = 0.03, 0.01  # chance of each per word
CUES = frozenset().union(*phrases.CUES.values())


class Token(NamedTuple):
    """A word and its truth: its tag, and for a word of a name the types it could be by itself."""

    word: str
    tag: str = "O"
    could_be: tuple[str, ...] = ()


def _plain_name(rng: random.Random, label: str) -> str:
    """A name that tells its own type."""
    return rng.choice(phrases.SHAPES[label]).format(
        first=rng.choice(phrases.FIRST_NAMES),
        last=rng.choice(phrases.LAST_NAMES),
        root=rng.choice(phrases.ROOTS),
    )


def sentence(
    rng: random.Random, label: str | None, clue: bool, ambiguous: bool, further: str | None
) -> list[Token]:
    """A template with its names, times and numbers filled in."""
    templates = phrases.EMPTY_TEMPLATES
    names: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    if label is not None:
        templates = phrases.CUE_TEMPLATES[label] if clue else phrases.NEUTRAL_TEMPLATES
        if ambiguous:
            names["{x}"] = (rng.choice(phrases.AMBIGUOUS_NAMES), label, LABELS)
        else:
            names["{x}"] = (_plain_name(rng, label), label, (label,))
    pattern = rng.choice(templates)
    if further is not None:
        names["{y}"] = (_plain_name(rng, further), further, (further,))
        pattern = rng.choice(phrases.FURTHER_TEMPLATES).replace("{main}", pattern)
    time, number = rng.choice(phrases.TIMES), rng.choice(phrases.NUMBERS)
    tokens: list[Token] = []
    for slot in pattern.replace("{t}", time).replace("{n}", number).split():
        tokens += _name_tokens(rng, *names[slot]) if slot in names else [Token(slot)]
    return tokens


def _name_tokens(
    rng: random.Random, name: str, label: str, could_be: tuple[str, ...]
) -> list[Token]:
    if rng.random() < HASHTAG:
        joined = "".join(c for c in name if c.isalnum())
        return [Token("#"), Token(joined, f"B-{label}", could_be)]
    first, *rest = name.split()
    return [
        Token(first, f"B-{label}", could_be),
        *(Token(word, f"I-{label}", could_be) for word in rest),
    ]


def _handle(rng: random.Random) -> str:
    return f"{rng.choice(phrases.HANDLES)}_{rng.choice(string.ascii_lowercase)}{rng.randint(1, 99)}"


def framed(rng: random.Random, tokens: Sequence[Token]) -> list[Token]:
    """The sentence with what tweets put before and after one."""
    before: list[str] = []
    after: list[str] = []
    if rng.random() < 0.12:
        before += ["RT", "@", _handle(rng), ":"]
    if rng.random() < 0.2:
        before += rng.choice(phrases.OPENINGS).split()
    if rng.random() < 0.3:
        after += rng.choice(phrases.CLOSINGS).split()
    if rng.random() < 0.12:
        after += ["#", rng.choice(phrases.HASHTAGS)]
    if rng.random() < 0.06:
        after += ["@", _handle(rng)]
    if rng.random() < 0.25:
        after += [rng.choice(phrases.EMOJI)] * rng.choice((1, 1, 2))
    if rng.random() < 0.02:
        after += ["❤", "\ufe0f"]  # real tweets leave the invisible half of a heart as a word
    if rng.random() < 0.2:
        after.append("http://t.co/" + "".join(rng.choices(string.ascii_letters, k=10)))
    return [*map(Token, before), *tokens, *map(Token, after)]


def noisy(rng: random.Random, tokens: Sequence[Token]) -> list[Token]:
    """Typos in words that are neither name nor clue; now and then all small or all capital."""
    case = rng.choices((str, str.lower, str.upper), (94, 4, 2))[0]
    noisy = []
    for token in tokens:
        word = token.word
        if token.tag == "O" and word.isalpha() and word not in CUES and len(word) > 3:
            word = _mistyped(rng, word)
        if not word.startswith("http"):
            word = case(word)
        noisy.append(token._replace(word=word))
    return noisy


def _mistyped(rng: random.Random, word: str) -> str:
    """The word, or rarely one with two letters swapped, a letter lost, or a vowel drawn out."""
    chance, at = rng.random(), rng.randrange(1, len(word) - 1)
    wrong = word
    if chance < TYPO / 2:
        wrong = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif chance < TYPO:
        wrong = word[:at] + word[at + 1 :]
    elif chance < TYPO + ELONGATED and word[at] in "aeiou":
        wrong = word[:at] + word[at] * rng.randint(3, 5) + word[at + 1 :]
    return word if wrong in CUES else wrong
