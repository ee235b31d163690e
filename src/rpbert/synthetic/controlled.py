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
import math
import random
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rpbert.errors import InputError
from rpbert.storage.writing import check_writable
from rpbert.synthetic.scenes import draw
from rpbert.synthetic.sentences import LABELS, Token, framed, noisy, sentence

TITLE = "# Controlled posts made by rpbert"
# The split of post i is SPLITS[i % 10]: 70 / 10 / 20 %, and no post moves when more are made.
SPLITS = ("train", "train", "test", "train", "train", "valid", "train", "train", "test", "train")
NAMELESS = 0.05  # share of all posts that name nothing
SECOND_NAME = 0.25  # chance that a post names something else as well
RANGES = {
    "posts": (10, math.inf),
    "relevant": (0, 1),
    "ambiguous": (0, 1),
    "image_size": (32, 2048),
    "images": (1, 9),
}
IMAGE_NAME = re.compile(r"made_\d{6,}(_\d+)?\.jpg")


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
        images: how many each post shows, 1 to 9; one of them is the post's own. The others show
            what the text does not speak of, or nothing where the words give no clue.

    Raises:
        InputError: an option is out of its range.
    """

    posts: int = 3000
    relevant: float = 0.44
    ambiguous: float = 0.65
    seed: int = 0
    image_size: int = 224
    images: int = 1

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(name, str(getattr(self, name)), f"{least} to {most}")


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
        clue, ambiguous = True, rng.random() < options.ambiguous
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

    The same options (those of `Options`) give the same bytes. A folder that was made before is
    written over, and images of a larger set are removed; other files stay.

    Raises:
        InputError: an option is out of its range, or the folder holds something else.
    """
    given = Options(**options)
    readme = folder / "README.md"
    claim(folder, readme.is_file() and readme.read_text("utf-8", "replace").startswith(TITLE))
    (folder / "images").mkdir(exist_ok=True)
    for name, lines in _made(folder, given).items():
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
    if given.images == 1:  # of an earlier set with several images a post
        (folder / "images.tsv").unlink(missing_ok=True)


def claim(folder: Path, made_before: bool) -> None:
    """Makes the folder, unless it holds what was not made here.

    Raises:
        InputError: it holds other files, is none, or cannot be written.
    """
    check_writable(folder, "made posts")
    if not made_before and folder.exists() and any(folder.iterdir()):
        expected = "a new or empty folder, or one made before"
        raise InputError(folder, "other files", expected, "nothing was written")
    folder.mkdir(parents=True, exist_ok=True)


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
    given = asdict(options)
    if options.images == 1:
        del given["images"]
    listed = "\n".join(f"- {name}: {value}" for name, value in given.items())
    text = files("rpbert.synthetic").joinpath("readme.md").read_text("utf-8")
    lines = text.replace("{options}", listed).splitlines(keepends=True)
    return "".join(line for line in lines if options.images > 1 or "images.tsv" not in line)
