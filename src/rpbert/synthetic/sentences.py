"""The words of made posts: a sentence with its names, framed and mistyped as tweets are.

``phrases.json`` holds names and templates with or without a clue to the type. In a template `{x}`
is the name, `{t}` a time, `{n}` a number. Every template of ``cue_templates`` holds a word of its
type's ``cues`` and of no other's; ``lists`` holds no such word.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

LABELS = ("PER", "LOC", "ORG", "MISC")
HASHTAG = 0.08  # chance that a name stands in a hashtag
TYPO, ELONGATED = 0.03, 0.01  # chance of each per word

_DATA: Any = json.loads(files("rpbert.synthetic").joinpath("phrases.json").read_text("utf-8"))
CUES: dict[str, list[str]] = _DATA["cues"]
CUE_TEMPLATES: dict[str, list[str]] = _DATA["cue_templates"]
NAME_SHAPES: dict[str, list[str]] = _DATA["name_shapes"]
PHRASES: dict[str, list[str]] = _DATA["lists"]
ALL_CUES = frozenset(word for words in CUES.values() for word in words)


class Token(NamedTuple):
    """A word and its truth: its tag, and for a word of a name the types it could be by itself."""

    word: str
    tag: str = "O"
    could_be: tuple[str, ...] = ()


def sentence(
    rng: random.Random, label: str | None, clue: bool, ambiguous: bool, second: str | None
) -> list[Token]:
    """A template with its names, times and numbers filled in."""
    templates = PHRASES["empty_templates"]
    names: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    if label is not None:
        templates = CUE_TEMPLATES[label] if clue else PHRASES["neutral_templates"]
        if ambiguous:
            names["{x}"] = (rng.choice(PHRASES["ambiguous_names"]), label, LABELS)
        else:
            names["{x}"] = (_plain_name(rng, label), label, (label,))
    template = rng.choice(templates)
    if second is not None:
        names["{y}"] = (_plain_name(rng, second), second, (second,))
        template = rng.choice(PHRASES["second_name_templates"]).replace("{main}", template)
    time, number = rng.choice(PHRASES["times"]), rng.choice(PHRASES["numbers"])
    tokens: list[Token] = []
    for slot in template.replace("{t}", time).replace("{n}", number).split():
        tokens += _name_tokens(rng, *names[slot]) if slot in names else [Token(slot)]
    return tokens


def _plain_name(rng: random.Random, label: str) -> str:
    """A name that tells its own type."""
    shape = rng.choice(NAME_SHAPES[label])
    lists = {"first": "first_names", "last": "last_names", "root": "name_roots"}
    return shape.format(**{part: rng.choice(PHRASES[name]) for part, name in lists.items()})


def _name_tokens(
    rng: random.Random, name: str, label: str, could_be: tuple[str, ...]
) -> list[Token]:
    if rng.random() < HASHTAG:
        joined = "".join(c for c in name if c.isalnum())
        return [Token("#"), Token(joined, f"B-{label}", could_be)]
    tags = (f"{'I' if position else 'B'}-{label}" for position in range(len(name)))
    return [Token(word, tag, could_be) for word, tag in zip(name.split(), tags, strict=False)]


def framed(rng: random.Random, tokens: Sequence[Token]) -> list[Token]:
    """The sentence with what tweets put before and after one."""

    def handle() -> str:
        letter = rng.choice(PHRASES["handles"]), rng.choice(string.ascii_lowercase)
        return f"{'_'.join(letter)}{rng.randint(1, 99)}"

    before = ["RT", "@", handle(), ":"] if rng.random() < 0.12 else []
    if rng.random() < 0.2:
        before += rng.choice(PHRASES["openings"]).split()
    after = rng.choice(PHRASES["closings"]).split() if rng.random() < 0.3 else []
    if rng.random() < 0.12:
        after += ["#", rng.choice(PHRASES["hashtags"])]
    if rng.random() < 0.06:
        after += ["@", handle()]
    if rng.random() < 0.25:
        after += [rng.choice(PHRASES["emoji"])] * rng.choice((1, 1, 2))
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
        if token.tag == "O" and word.isalpha() and word not in ALL_CUES and len(word) > 3:
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
    return word if wrong in ALL_CUES else wrong
