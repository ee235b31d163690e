"""Made posts with drawn images, for which the whole truth is known: `rpbert data make`.
The main name is a person (PER), place (LOC), organisation (ORG) or anything else (MISC), each as
often whatever the name. Three kinds of post make a tagger read text and image together:
- relevant, no clue: name and words say nothing of the type, and the image shows it;
- relevant, clue: the words tell the type, and the image agrees;
- irrelevant, clue: the words tell the type, and the image shows something else.
So relevance follows from both together: where the words give a clue, the image adds exactly if it
agrees with them. A few posts name nothing; their image adds nothing."""

from __future__ import annotations

import json
import random
import re
import string
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from rpbert.config.model import Settings
from rpbert.config.reading import parse
from rpbert.data.labels import strict_spans
from rpbert.errors import InputError
from rpbert.storage.writing import LOCK, check_writable, held
from rpbert.synthetic.scenes import draw

TITLE = "# Controlled posts made by rpbert"
# The split of post i is SPLITS[i % 10]: 70 / 10 / 20 %, and no post moves when more are made.
SPLITS = ("train", "train", "test", "train", "train", "valid", "train", "train", "test", "train")
NAMELESS = 0.05  # share of all posts that name nothing
SECOND_NAME = 0.25  # chance that a post names something else as well
IMAGE_NAME = re.compile(r"made_\d{6,}(_\d+)?\.jpg")
LABELS = ("PER", "LOC", "ORG", "MISC")
HASHTAG = 0.08  # chance that a name stands in a hashtag
TYPO, ELONGATED = 0.03, 0.01  # chance of each per word
# Names and templates; in these `{x}` is the name, `{t}` a time, `{n}` a number. Every template of
# ``cue_templates`` holds a word of its type's ``cues`` and of no other's; ``lists`` holds none.
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


class Options(Settings):
    """What decides a set of made posts."""

    posts: int = Field(3000, ge=10)  # fewer would leave a split empty
    relevant: float = Field(0.44, ge=0, le=1)
    """Share of posts whose image adds to the text; TRC's rate."""
    ambiguous: float = Field(0.65, ge=0, le=1)
    """Share of the relevant posts that only the image solves, and chance of an ambiguous name in
    the others."""
    misleading: float | None = Field(None, ge=0, le=1)
    """Chance of an ambiguous name in a post whose image does not add: the image then shows another
    type that the name could be, and misleads whoever reads no clue; None: as `ambiguous`."""
    seed: int = 0
    image_size: int = Field(224, ge=32, le=2048)
    """About so many pixels in width and height."""
    images: int = Field(1, ge=1, le=9)
    """Of each post; one is its own, the others show nothing that the text tells."""


@dataclass(frozen=True, slots=True)
class MadePost:
    """The words of a post and the truth about it."""

    id: str  # also the file name of its image, without suffix
    split: str
    tokens: tuple[Token, ...]
    label: str | None  # the type of the main name, None where nothing is named
    clue: bool  # the words tell that type
    relation: int  # 1 where the image shows what the main name is, else 0
    shows: str  # the type in the image; where relation is 0, that of no name of the post
    others: tuple[str, ...]  # types of no name of the post

    @property
    def text(self) -> str:
        """The words joined by one blank."""
        return " ".join(token.word for token in self.tokens)

    def entities(self) -> list[dict[str, Any]]:
        """The names with their place in `text`, in characters, and what each could be."""
        found = []
        words = [token.word for token in self.tokens]
        for label, first, last in strict_spans([token.tag for token in self.tokens]):
            name, start = " ".join(words[first:last]), len(" ".join([*words[:first], ""]))
            row = {"text": name, "start": start, "end": start + len(name), "label": label}
            found.append({**row, "could_be": list(self.tokens[first].could_be)})
        return found


def make_post(index: int, options: Options) -> MadePost:
    """Post number `index`: its kind by rank within its split, the rest by chance from the seed."""
    rng = random.Random(f"{options.seed}/{index}/text")
    rounds, turn = divmod(index, len(SPLITS))
    split = SPLITS[turn]
    rank = rounds * SPLITS.count(split) + SPLITS[:turn].count(split)
    relevant = _takes_turn(rank, options.relevant)
    before = _quota(rank, options.relevant)
    main, shows = rng.choice(LABELS), rng.choice(LABELS)
    label: str | None = main
    nameless = NAMELESS / (1 - options.relevant) if options.relevant < 1 else 0.0
    if relevant:
        clue = not _takes_turn(before, options.ambiguous)
        ambiguous = not clue or rng.random() < options.ambiguous
        second = _second_name(rng)
        shows = main
    elif _takes_turn(rank - before, min(1.0, nameless)):
        label, clue, ambiguous, second = None, False, False, None
    else:
        chance = options.ambiguous if options.misleading is None else options.misleading
        clue, ambiguous = True, rng.random() < chance
        second = _second_name(rng)
        shows = rng.choice([other for other in LABELS if other not in (main, second)])
    tokens = sentence(rng, label, clue, ambiguous, second)
    return MadePost(
        id=f"made_{index:06d}",
        split=split,
        tokens=tuple(noisy(rng, framed(rng, tokens))),
        label=label,
        clue=clue,
        relation=int(relevant),
        shows=shows,
        others=tuple(other for other in LABELS if other not in (label, second)),
    )


def _quota(number: int, share: float) -> int:
    """How many of the first `number` are chosen: the share, rounded."""
    return int(number * share + 0.5)


def _takes_turn(rank: int, share: float) -> bool:
    """Whether the one of that rank is chosen, so that every `_quota` is met."""
    return _quota(rank + 1, share) > _quota(rank, share)


def _second_name(rng: random.Random) -> str | None:
    """The type of a second name, independent of the main one's, or None."""
    label = rng.choice(LABELS)
    return label if rng.random() < SECOND_NAME else None


def make(folder: Path, **options: Any) -> None:
    """Writes a data folder of made posts, and ``entities.jsonl`` with the whole truth.
    The same `Options` give the same bytes. A folder that was made before is written over, and
    images of a larger set are removed.
    Raises InputError: an option is out of its range, or the folder holds something else."""
    given = parse(Options, options, "made posts")
    readme = folder / "README.md"
    made_before = readme.is_file() and readme.read_text("utf-8", "replace").startswith(TITLE)
    with claimed(folder, made_before):
        (folder / "images").mkdir(exist_ok=True)
        for name, lines in _made(folder, given).items():
            (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
        if given.images == 1:  # of an earlier set with several images a post
            (folder / "images.tsv").unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path, made_before: bool) -> Iterator[None]:
    """Makes the folder and holds it. Raises InputError: it holds what was not made here, is not
    writable, or another process writes it."""
    check_writable(folder, "made posts")
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / LOCK, folder):
        if not made_before and any(path.name != LOCK for path in folder.iterdir()):
            expected = "a new or empty folder, or one made before"
            raise InputError(folder, "other files", expected, "nothing was written")
        yield


def _made(folder: Path, options: Options) -> dict[str, list[str]]:
    """Draws the images of all posts; returns the lines of each text file."""
    texts = defaultdict[str, list[str]](list, {"README.md": [_readme(options)]})
    ids: set[str] = set()
    for index in range(options.posts):
        post = make_post(index, options)
        images = _draw_images(post, index, options, folder)
        words = "".join(f"{token.word}\t{token.tag}\n" for token in post.tokens)
        texts[f"{post.split}.txt"].append(f"IMGID:{post.id}\n{words}\n")
        texts["entities.jsonl"].append(json.dumps(_truth(post, images), ensure_ascii=False) + "\n")
        for id, image in images.items():
            texts["captions.tsv"].append(f"{id}\t{image['caption']}\n")
            texts["relations.tsv"].append(f"{id}\t{image['relation']}\n")
        if options.images > 1:
            first, *others = images
            texts["images.tsv"].append(f"{first}\t{' '.join(others)}\n")
        ids.update(images)
    for path in list((folder / "images").iterdir()):  # of an earlier, larger set
        if IMAGE_NAME.fullmatch(path.name) and path.stem not in ids:
            path.unlink()
    return texts


def _draw_images(
    post: MadePost, index: int, options: Options, folder: Path
) -> dict[str, dict[str, Any]]:
    """Draws a post's images, its own at a place by chance; returns the truth of each by its id."""
    seed = f"{options.seed}/{index}/image"
    plans: list[tuple[str, str | None, int]] = [(seed, post.shows, post.relation)]
    if options.images > 1:
        rng = random.Random(f"{options.seed}/{index}/images")
        # Without a clue any type of thing might belong to the name, so that none is the wrong one.
        told = post.clue or not post.relation
        for number in range(2, options.images + 1):
            plans.append((f"{seed}/{number}", rng.choice(post.others) if told else None, 0))
        plans.insert(rng.randrange(options.images), plans.pop(0))
    images = {}
    for number, (seed, shows, relation) in enumerate(plans, 1):
        rng = random.Random(seed)
        scene = draw(shows, rng, options.image_size)
        id = post.id if number == 1 else f"{post.id}_{number}"
        path = f"images/{id}.jpg"
        scene.image.save(folder / path, "JPEG", quality=rng.randint(75, 92))
        images[id] = {"image": path, "relation": relation, "caption": scene.caption}
        images[id] |= {"scene": scene.kind, "shows": shows}
    return images


def _truth(post: MadePost, images: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A row of the truth; what is of an image is a list where there are several."""
    rows = list(images.values())
    shown = rows[0] if len(rows) == 1 else {key: [row[key] for row in rows] for key in rows[0]}
    return {
        "id": post.id,
        "split": post.split,
        "text": post.text,
        "tokens": [token.word for token in post.tokens],
        "entities": post.entities(),
        **shown,
        "type": post.label,
        "clue": post.clue,
    }


def _readme(options: Options) -> str:
    given = options.model_dump()
    for key, default in (("images", 1), ("misleading", None)):
        if given[key] == default:
            del given[key]
    listed = "\n".join(f"- {name}: {value}" for name, value in given.items())
    text = files("rpbert.synthetic").joinpath("readme.md").read_text("utf-8")
    lines = text.replace("{options}", listed).splitlines(keepends=True)
    return "".join(line for line in lines if options.images > 1 or "images.tsv" not in line)
