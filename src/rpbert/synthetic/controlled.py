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
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rpbert.errors import InputError, reason_of
from rpbert.synthetic.phrases import LABELS
from rpbert.synthetic.sentences import Token, framed, noisy, sentence

TITLE = "# Controlled posts made by rpbert"
# The split of post i is SPLITS[i % 10]: 70 / 10 / 20 %, and no post moves when more are made.
SPLITS = ("train", "train", "test", "train", "train", "valid", "train", "train", "test", "train")
NAMELESS = 0.05  # share of all posts that name nothing
FURTHER = 0.25  # chance that a post names something else as well
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
        images: how many each post shows, 1 to 9; one of them is the post's own, which adds to the
            text or does not. The others show what the text does not speak of, or nothing where
            the words do not tell of what they speak.

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
        if self.posts < 10:
            raise InputError("posts", str(self.posts), "10 or more")
        for name in ("relevant", "ambiguous"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(name, str(value), "a share between 0 and 1")
        if not 32 <= self.image_size <= 2048:
            raise InputError("image_size", str(self.image_size), "32 to 2048 pixels")
        if not 1 <= self.images <= 9:
            raise InputError("images", str(self.images), "1 to 9")


class Picture(NamedTuple):
    """An image of a post: its id, the type it shows, if any, and whether that adds to the text.

    Attributes:
        seed: decides how it is drawn.
    """

    id: str
    shows: str | None
    relation: int
    seed: str


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
        others: types of no name of the post.
    """

    id: str
    split: str
    tokens: tuple[Token, ...]
    label: str | None
    clue: bool
    relation: int
    shows: str
    others: tuple[str, ...]

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
    images: int = 1,
) -> None:
    """Writes a data folder of made posts; the same options give the same bytes.

    The folder gets the text files, ``images/``, ``captions.tsv`` and ``relations.tsv`` of every
    data folder, ``entities.jsonl`` with the whole truth, and ``README.md``. A folder that was
    made before is written over, and images of a larger set are removed; other files stay.

    Args:
        folder: new, empty, or made before.
        posts, relevant, ambiguous, seed, image_size, images: as in `Options`.

    Raises:
        InputError: an option is out of its range, or the folder holds something else.
    """
    from rpbert.synthetic.scenes import draw

    options = Options(posts, relevant, ambiguous, seed, image_size, images)
    folder = Path(folder)
    _claim(folder)
    (folder / "README.md").write_text(_readme(options), encoding="utf-8", newline="\n")
    rows: list[dict[str, Any]] = []
    kept: set[str] = set()
    captions: list[str] = []
    relations: list[str] = []
    words: dict[str, list[str]] = {split: [] for split in ("train", "valid", "test")}
    for index in range(posts):
        post = make_post(index, options)
        pictures = arranged(post, index, options)
        scenes = []
        for picture in pictures:
            rng = random.Random(picture.seed)
            scene = draw(picture.shows, rng, image_size)
            path = folder / "images" / f"{picture.id}.jpg"
            kept.add(path.name)
            scene.image.save(path, "JPEG", quality=rng.randint(75, 92))
            scenes.append((scene.kind, scene.caption))
            captions.append(f"{picture.id}\t{scene.caption}\n")
            relations.append(f"{picture.id}\t{picture.relation}\n")
        words[post.split].append(_conll(post))
        rows.append(_truth(post, pictures, scenes))
    _write_beside(folder, rows, captions, relations)
    for split, texts in words.items():
        with _writing(folder / f"{split}.txt") as file:
            file.writelines(texts)
    _remove_others(folder / "images", kept)


def arranged(post: MadePost, index: int, options: Options) -> list[Picture]:
    """The images of post number `index`: its own at a place by chance, the others around it."""
    own = Picture(post.id, post.shows, post.relation, f"{options.seed}/{index}/image")
    if options.images == 1:
        return [own]
    rng = random.Random(f"{options.seed}/{index}/images")
    # Without a clue any type of thing might belong to the name, so that none is the wrong one.
    told = post.clue or not post.relation
    pictures = [
        Picture("", rng.choice(post.others) if told else None, 0, f"{own.seed}/{number}")
        for number in range(2, options.images + 1)
    ]
    pictures.insert(rng.randrange(options.images), own)
    ids = [post.id, *(f"{post.id}_{number}" for number in range(2, options.images + 1))]
    return [picture._replace(id=id) for id, picture in zip(ids, pictures, strict=True)]


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
    tokens = sentence(rng, label, clue, ambiguous, further)
    named = {main, further} if label else {further}
    return MadePost(
        id=f"made_{index:06d}",
        split=split,
        tokens=tuple(noisy(rng, framed(rng, tokens))),
        label=label,
        clue=clue,
        relation=int(relevant),
        shows=shows,
        others=tuple(other for other in LABELS if other not in named),
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
        raise InputError(folder, reason_of(error), "a folder that can be written") from error


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the images that an earlier, larger set left here."""
    for path in list(folder.iterdir()):
        if IMAGE_NAME.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _writing(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _conll(post: MadePost) -> str:
    lines = "".join(f"{token.word}\t{token.tag}\n" for token in post.tokens)
    return f"IMGID:{post.id}\n{lines}\n"


def _write_beside(
    folder: Path, rows: list[dict[str, Any]], captions: list[str], relations: list[str]
) -> None:
    """Writes the whole truth, and what is known of each image."""
    with _writing(folder / "entities.jsonl") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    several = [row for row in rows if isinstance(row["image"], list)]
    further = [[row["id"], *(Path(name).stem for name in row["image"][1:])] for row in several]
    files = {"captions": captions, "relations": relations}
    if further:
        files["images"] = [f"{id}\t{' '.join(others)}\n" for id, *others in further]
    for name, lines in files.items():
        with _writing(folder / f"{name}.tsv") as file:
            file.writelines(lines)
    if not further:  # of an earlier set with several images a post
        (folder / "images.tsv").unlink(missing_ok=True)


def _truth(
    post: MadePost, pictures: Sequence[Picture], scenes: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """A row of the truth; what is of an image is a list where there are several."""

    def each(values: Sequence[Any]) -> Any:
        return values[0] if len(values) == 1 else list(values)

    return {
        "id": post.id,
        "split": post.split,
        "text": post.text,
        "tokens": [token.word for token in post.tokens],
        "entities": post.entities(),
        "image": each([f"images/{picture.id}.jpg" for picture in pictures]),
        "relation": each([picture.relation for picture in pictures]),
        "caption": each([caption for _, caption in scenes]),
        "scene": each([kind for kind, _ in scenes]),
        "shows": each([picture.shows for picture in pictures]),
        "type": post.label,
        "clue": post.clue,
    }


def _readme(options: Options) -> str:
    given = asdict(options)
    further = "| `images.tsv` | id, tab, the ids of the further images of the post |\n"
    if options.images == 1:
        del given["images"]
        further = ""
    listed = "\n".join(f"- {name}: {value}" for name, value in given.items())
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
{further}| `entities.jsonl` | the whole truth, a line per post, keys below |

`entities`: the names, `start` and `end` in characters of `text`, `could_be` the types that the
name by itself could have. `type`: that of the main name, null where nothing is named. `clue`:
whether the words tell it. `scene`, `shows`: what is drawn, and the type it stands for. `tokens`,
`image`, `relation`, `caption`, `split`: as in the other files.
"""
