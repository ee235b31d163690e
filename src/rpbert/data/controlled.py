"""Made posts with drawn images, for which the whole truth is known: `rpbert data make`.

A post has a main name that is a person (PER), a place (LOC), an organisation (ORG) or anything
else (MISC), each as often as the others whatever the name. Three kinds of post make a tagger
read text and image together:

- relevant, no clue: the name could be any type, the words around it say nothing, and the image
  shows the type;
- relevant, clue: the words tell the type, and the image agrees;
- irrelevant, clue: the words tell the type, and the image shows something else.

Relevance in turn follows from text and image only together: where the words give a clue, the
image adds exactly if it agrees with them. A few posts name nothing; their image adds nothing.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rpbert.data import phrases
from rpbert.data.phrases import LABELS
from rpbert.errors import InputError

TITLE = "# Controlled posts made by rpbert"
# The split of post i is SPLITS[i % 10]: 70 / 10 / 20 %, and no post moves when more are made.
SPLITS = ("train", "train", "test", "train", "train", "valid", "train", "train", "test", "train")
NAMELESS = 0.05  # share of all posts that name nothing
FURTHER = 0.25  # chance that a post names something else as well
HASHTAG = 0.08  # chance that a name stands in a hashtag
TYPO, ELONGATED = 0.03, 0.01  # chance of each per word
CUES = frozenset().union(*phrases.CUES.values())


@dataclass(frozen=True, slots=True)
class Options:
    """What decides a set of made posts.

    Attributes:
        posts: how many, at least 10 so that no split is empty.
        relevant: share of posts whose image adds to the text; 0.44 is TRC's rate.
        ambiguous: share of the relevant posts that only the image solves, and chance that the
            name is ambiguous in the others.
        seed: decides everything else.
        image_size: the images have about this many pixels in width and height, 32 to 2,048.

    Raises:
        InputError: an option is out of its range.
    """

    posts: int = 3000
    relevant: float = 0.44
    ambiguous: float = 0.65
    seed: int = 0
    image_size: int = 224

    def __post_init__(self) -> None:
        if self.posts < 10:
            raise InputError("posts", str(self.posts), "10 or more")
        for name in ("relevant", "ambiguous"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(name, str(value), "a share between 0 and 1")
        if not 32 <= self.image_size <= 2048:
            raise InputError("image_size", str(self.image_size), "32 to 2048 pixels")


class Token(NamedTuple):
    """A word and its truth: its tag, and for a word of a name the types it could be by itself."""

    word: str
    tag: str = "O"
    could_be: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MadePost:
    """The words of a post and the truth about it.

    Attributes:
        id: also the file name of its image, without suffix.
        split: ``train``, ``valid`` or ``test``.
        tokens: the words with their IOB2 tags.
        label: the type of the main name, None where nothing is named.
        clue: the words tell that type.
        relation: 1 where the image shows what the main name is, else 0.
        shows: the type that the image shows; where relation is 0, that of no name of the post.
    """

    id: str
    split: str
    tokens: tuple[Token, ...]
    label: str | None
    clue: bool
    relation: int
    shows: str

    @property
    def text(self) -> str:
        """The words joined by one blank."""
        return " ".join(token.word for token in self.tokens)

    def entities(self) -> list[dict[str, Any]]:
        """The names with their place in `text`, in characters, and what each could be."""
        found: list[dict[str, Any]] = []
        position = 0
        for token in self.tokens:
            end = position + len(token.word)
            if token.tag.startswith("B-"):
                known = {"label": token.tag[2:], "could_be": list(token.could_be)}
                found.append({"start": position, "end": end, **known})
            elif token.tag.startswith("I-"):
                found[-1]["end"] = end
            position = end + 1
        return [{"text": self.text[e["start"] : e["end"]], **e} for e in found]


def make(
    folder: Path,
    posts: int = 3000,
    relevant: float = 0.44,
    ambiguous: float = 0.65,
    seed: int = 0,
    image_size: int = 224,
) -> None:
    """Writes a data folder of made posts; the same options give the same bytes.

    The folder gets the text files, ``images/``, ``captions.tsv`` and ``relations.tsv`` of every
    data folder, ``entities.jsonl`` with the whole truth, and ``README.md``. A folder that was
    made before is written over; nothing is deleted, so images of a larger set remain.

    Args:
        folder: new, empty, or made before.
        posts, relevant, ambiguous, seed, image_size: as in `Options`.

    Raises:
        InputError: an option is out of its range, or the folder holds something else.
    """
    from rpbert.data.scenes import draw

    options = Options(posts, relevant, ambiguous, seed, image_size)
    folder = Path(folder)
    _claim(folder)
    (folder / "README.md").write_text(_readme(options), encoding="utf-8", newline="\n")
    rows: list[dict[str, Any]] = []
    words: dict[str, list[str]] = {split: [] for split in ("train", "valid", "test")}
    for index in range(posts):
        post = make_post(index, options)
        rng = random.Random(f"{seed}/{index}/image")
        scene = draw(post.shows, rng, image_size)
        scene.image.save(folder / "images" / f"{post.id}.jpg", "JPEG", quality=rng.randint(75, 92))
        words[post.split].append(_conll(post))
        rows.append(_truth(post, scene.kind, scene.caption))
    with _writing(folder / "entities.jsonl") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name in ("caption", "relation"):
        with _writing(folder / f"{name}s.tsv") as file:
            file.writelines(f"{row['id']}\t{row[name]}\n" for row in rows)
    for split, texts in words.items():
        with _writing(folder / f"{split}.txt") as file:
            file.writelines(texts)


def make_post(index: int, options: Options) -> MadePost:
    """Post number `index`: its kind by rank within its split, the rest by chance from the seed."""
    rng = random.Random(f"{options.seed}/{index}/text")
    split, rank = _place(index)
    relevant = _takes_turn(rank, options.relevant)
    before = _quota(rank, options.relevant)
    main, shows = rng.choice(LABELS), rng.choice(LABELS)
    nameless = NAMELESS / (1 - options.relevant) if options.relevant < 1 else 0.0
    label: str | None = main
    if relevant:
        clue = not _takes_turn(before, options.ambiguous)
        ambiguous = not clue or rng.random() < options.ambiguous
        further = _further(rng)
        shows = main
    elif _takes_turn(rank - before, min(1.0, nameless)):
        label, clue, ambiguous, further = None, False, False, None
    else:
        clue, ambiguous = True, rng.random() < options.ambiguous
        further = _further(rng)
        shows = rng.choice([other for other in LABELS if other not in (main, further)])
    tokens = _sentence(rng, label, clue, ambiguous, further)
    return MadePost(
        id=f"made_{index:06d}",
        split=split,
        tokens=tuple(_noisy(rng, _framed(rng, tokens))),
        label=label,
        clue=clue,
        relation=int(relevant),
        shows=shows,
    )


def _place(index: int) -> tuple[str, int]:
    """The split of a post and its rank within it."""
    rounds, turn = divmod(index, len(SPLITS))
    split = SPLITS[turn]
    return split, rounds * Counter(SPLITS)[split] + SPLITS[:turn].count(split)


def _quota(number: int, share: float) -> int:
    """How many of the first `number` are chosen: the share, rounded."""
    return int(number * share + 0.5)


def _takes_turn(rank: int, share: float) -> bool:
    """Whether the one of that rank is chosen, so that every `_quota` is met."""
    return _quota(rank + 1, share) > _quota(rank, share)


def _further(rng: random.Random) -> str | None:
    """The type of a second name, independent of the main one's, or None."""
    label = rng.choice(LABELS)
    return label if rng.random() < FURTHER else None


def _plain_name(rng: random.Random, label: str) -> str:
    """A name that tells its own type."""
    return rng.choice(phrases.SHAPES[label]).format(
        first=rng.choice(phrases.FIRST_NAMES),
        last=rng.choice(phrases.LAST_NAMES),
        root=rng.choice(phrases.ROOTS),
    )


def _sentence(
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


def _framed(rng: random.Random, tokens: Sequence[Token]) -> list[Token]:
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


def _noisy(rng: random.Random, tokens: Sequence[Token]) -> list[Token]:
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


def _claim(folder: Path) -> None:
    """Makes the folder, unless it holds what was not made here."""
    expected = "a new or empty folder, or one made before"
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", expected)
    readme = folder / "README.md"
    try:
        made = readme.is_file() and readme.read_text("utf-8", "replace").startswith(TITLE)
        if not made and folder.is_dir() and any(folder.iterdir()):
            raise InputError(folder, "other files", expected, "nothing was written")
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, str(error), "a folder that can be written") from error


def _writing(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _conll(post: MadePost) -> str:
    lines = "".join(f"{token.word}\t{token.tag}\n" for token in post.tokens)
    return f"IMGID:{post.id}\n{lines}\n"


def _truth(post: MadePost, scene: str, caption: str) -> dict[str, Any]:
    return {
        "id": post.id,
        "split": post.split,
        "text": post.text,
        "tokens": [token.word for token in post.tokens],
        "entities": post.entities(),
        "image": f"images/{post.id}.jpg",
        "relation": post.relation,
        "caption": caption,
        "scene": scene,
        "shows": post.shows,
        "type": post.label,
        "clue": post.clue,
    }


def _readme(options: Options) -> str:
    listed = "\n".join(f"- {name}: {value}" for name, value in asdict(options).items())
    return f"""{TITLE}

Posts with drawn images whose entities, types and text-image relations are known because they
were made so; no real person, post or photograph is in them. The same options give the same
bytes (with the same versions of Pillow and numpy):

{listed}

| file | what |
|---|---|
| `train.txt`, `valid.txt`, `test.txt` | `IMGID:<id>`, `token<TAB>tag` lines (IOB2), blank line |
| `images/<id>.jpg` | a person, a landscape, a logo or an object |
| `captions.tsv` | id, tab, what is drawn |
| `relations.tsv` | id, tab, 1 if the image shows what the post's main name is, else 0 |
| `entities.jsonl` | the whole truth, a line per post, keys below |

`entities`: the names, `start` and `end` in characters of `text`, `could_be` the types that the
name by itself could have. `type`: that of the main name, null where nothing is named. `clue`:
whether the words tell it. `scene`, `shows`: what is drawn, and the type it stands for. `tokens`,
`image`, `relation`, `caption`, `split`: as in the other files.
"""
