"""The one door to data: `open_data` takes a folder or file and gives its posts split by split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from rpbert.data.conll import read_conll
from rpbert.data.images import REGIONS, stored_ids
from rpbert.data.reading import ImageFolder, Quirk, lines_of, note, relation_of, shown
from rpbert.data.tables import NO_GOLD, read_jsonl, read_parquet
from rpbert.data.trc import is_trc, read_trc
from rpbert.data.webdataset import read_tar
from rpbert.data.words import SPLITTERS, WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post, PostImage, StoredRegions

__all__ = [
    "DataSource",
    "PostFiles",
    "Quirk",
    "TrcFolder",
    "open_data",
    "read_relations",
    "read_trc",
]

_SPLITS = {"train": "train", "valid": "dev", "dev": "dev", "test": "test"}
_FILES = {
    "train": "train.txt (train.jsonl, train.parquet)",
    "dev": "valid.txt or dev.txt (dev.jsonl, dev.parquet)",
    "test": "test.txt (test.jsonl, test.parquet)",
}
"""What would be read as a split of a data folder."""
_SUFFIXES = (".txt", ".jsonl", ".parquet")


class DataSource(Protocol):
    """Posts by split, wherever they come from."""

    @property
    def path(self) -> Path:
        """What was opened."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: of "train", "dev" and "test", or "all" for a single file."""
        ...

    def read(self, split: str, quirks: list[Quirk] | None = None) -> Iterator[Post]:
        """Posts of a split, read as they are asked for; `quirks` fills meanwhile.

        Raises:
            InputError: there is no such split, or what is read is malformed.
        """
        ...


@dataclass(frozen=True)
class PostFiles:
    """One file a split: CoNLL with IMGID, JSON lines or Parquet.

    Attributes:
        path: the data folder, or the single file.
        files: the file of each split.
        splitter: cuts a text that comes without words.
        faults: told of each faulty row.
    """

    path: Path
    files: dict[str, Path]
    splitter: WordSplitter
    faults: Faults = field(default=refuse)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        return tuple(self.files)

    def read(self, split: str, quirks: list[Quirk] | None = None) -> Iterator[Post]:
        """Posts of `split`; ``captions.tsv``, ``image_texts.tsv`` and ``relations.tsv`` of a
        folder fill gaps.

        Regions are those of ``regions.safetensors`` in the folder, or beside a single file. Posts
        of text files show the extra images that ``images.tsv`` names.

        Raises:
            InputError: there is no such split, or what is read is malformed.
        """
        file = self.files[_canonical(split, self)]
        beside = _Beside.files(self.path, file, quirks, self.faults)
        posts = (beside.added(post) for post in self._rows(file, quirks))
        extra = {}
        if file.suffix == ".txt":
            extra = _companion(self.path / "images.tsv", quirks, self.faults)
        images = _image_folder(self.path) if extra else None
        if images is None:
            return posts
        return (_with_extra_images(post, extra, images, beside) for post in posts)

    def _rows(self, file: Path, quirks: list[Quirk] | None) -> Iterator[Post]:
        if file.suffix == ".txt":
            return read_conll(file, _image_folder(self.path), quirks, self.faults)
        if file.suffix == ".jsonl":
            rows = read_jsonl(file, self.splitter, quirks, faults=self.faults)
        else:
            rows = read_parquet(file, self.splitter, quirks, faults=self.faults)
        return _at_least_one(rows, file)


@dataclass(frozen=True)
class _Beside:
    """What files beside the posts say of images, each by its id."""

    stored: Path
    regions: Collection[str]
    captions: Mapping[str, tuple[str, str]]
    relations: Mapping[str, float]
    image_texts: Mapping[str, tuple[str, str]]

    @classmethod
    def files(cls, path: Path, file: Path, quirks: list[Quirk] | None, faults: Faults) -> _Beside:
        """What lies beside a file: in a folder captions and relations, anywhere regions."""
        stored = file.parent / REGIONS
        if path.is_file():
            return cls(stored, stored_ids(stored), {}, {}, {})
        captions = _companion(path / "captions.tsv", quirks, faults)
        relations = read_relations(path / "relations.tsv", quirks, faults)
        written = _companion(path / "image_texts.tsv", quirks, faults)
        return cls(stored, stored_ids(stored), captions, relations, written)

    def of(self, id: str) -> PostImage:
        """What is known of an image."""
        regions = StoredRegions(self.stored, id) if id in self.regions else None
        caption = self.captions.get(id, (None, ""))[0]
        written = self.image_texts.get(id, (None, ""))[0]
        relation = self.relations.get(id)
        return PostImage(caption=caption, relation=relation, regions=regions, image_text=written)

    def added(self, post: Post) -> Post:
        """The post with what it lacks of its first image."""
        own, known = post.images[0], self.of(post.id)
        return post.with_(
            caption=own.caption or known.caption,
            relation=known.relation if own.relation is None else own.relation,
            regions=known.regions,
            image_text=own.image_text or known.image_text,
        )


def _with_extra_images(
    post: Post, extra: Mapping[str, tuple[str, str]], images: ImageFolder, beside: _Beside
) -> Post:
    """The post with the images that a line of ``images.tsv`` names after its first one."""
    ids, where = extra.get(post.id, ("", ""))
    found = (replace(beside.of(id), image=images.find(id, where)) for id in ids.split())
    return post.with_(images=(post.images[0], *found))


@dataclass(frozen=True)
class TrcFolder:
    """Published relation labels beside the user's own ``tweets.jsonl`` and ``images/``.

    Attributes:
        path: the folder.
        labels: the published CSV file.
        splitter: cuts each text into words.
        faults: told of each faulty row of the tweets.
    """

    path: Path
    labels: Path
    splitter: WordSplitter
    faults: Faults = field(default=refuse)

    @property
    def splits(self) -> tuple[str, ...]:
        """The published splits."""
        return ("train", "test")

    @property
    def tweets(self) -> Path:
        """Where the user's tweets are, or belong."""
        return self.path / "tweets.jsonl"

    def read(self, split: str, quirks: list[Quirk] | None = None) -> Iterator[Post]:
        """Labelled posts of `split`, as far as the user has their tweets.

        Raises:
            InputError: there is no such split, no tweets, or what is read is malformed.
        """
        split = _canonical(split, self)
        if not self.tweets.is_file():
            raise InputError(
                self.path,
                f"no tweets.jsonl beside {self.labels.name}",
                'your own tweets as lines {"id": "<tweet_id>", "text": "…"}',
                "only ids and labels are published; put images in images/<tweet_id>.jpg",
            )
        images = self.path / "images"
        folder = images if images.is_dir() else None
        return read_trc(self.labels, self.tweets, folder, split, self.splitter, quirks, self.faults)


def open_data(
    path: str | Path, splitter: WordSplitter | None = None, faults: Faults = refuse
) -> DataSource:
    """Open a data folder, a TRC folder, a ``.jsonl`` or a ``.parquet`` file.

    Args:
        path: the folder or file.
        splitter: cuts a text that comes without words; None: marks stay on their words.
        faults: told of each faulty row as it is read; `rpbert.data.reading.LeftOut` goes on.

    Raises:
        InputError: nothing of the kind is at `path`.
    """
    path, splitter = Path(path), splitter or SPLITTERS["joined"]
    if path.is_dir():
        return _open_folder(path, splitter, faults)
    hint = "give the folder of the file" if path.suffix == ".txt" else ""
    expected = "a data folder, a .jsonl or a .parquet file"
    return PostFiles(path, _only_file(path, expected, hint), splitter, faults=faults)


def read_relations(
    path: Path, quirks: list[Quirk] | None = None, faults: Faults = refuse
) -> dict[str, float]:
    """The relation of each post in a file of lines id, tab, 0, 1 or a probability between.

    A file that is not there has none.

    Raises:
        InputError: a line is malformed.
    """
    relations = {}
    for id, (value, where) in _companion(path, quirks, faults).items():
        try:
            relations[id] = relation_of(value, where)
        except InputError as fault:
            faults(fault)
    return relations


def _at_least_one(rows: Iterator[Post], path: Path) -> Iterator[Post]:
    """The posts of a file.

    Raises:
        InputError: there is none.
    """
    empty = True
    for post in rows:
        empty = False
        yield post
    if empty:
        raise InputError(path, "no rows", "a row a post")


def _only_file(path: Path, expected: str, hint: str = "") -> dict[str, Path]:
    """A single file under the split that its name tells."""
    if path.is_dir():
        raise InputError(path, "a folder", expected, hint)
    if not path.is_file():
        raise InputError(path, "nothing", expected)
    if path.suffix not in (".jsonl", ".parquet"):
        raise InputError(path, f"a file that ends in {shown(path.suffix)}", expected, hint)
    return {_SPLITS.get(path.stem, "all"): path}


def _open_folder(path: Path, splitter: WordSplitter, faults: Faults) -> DataSource:
    files: dict[str, Path] = {}
    for stem, split in _SPLITS.items():
        for file in (path / (stem + suffix) for suffix in _SUFFIXES):
            if not file.is_file():
                continue
            if split in files:
                found = f"both {files[split].name} and {file.name}"
                raise InputError(path, found, "one file a split", "move one of them away")
            files[split] = file
    if files:
        return PostFiles(path, files, splitter, faults=faults)
    labels = [file for file in sorted(path.glob("*.csv")) if is_trc(file)]
    if len(labels) > 1:
        found = f"{len(labels)} files of relation labels"
        raise InputError(path, found, "one .csv with tweet_id and image_adds")
    if labels:
        return TrcFolder(path, labels[0], splitter, faults)
    expected = "train, valid (or dev) or test as .txt, .jsonl or .parquet, or the labels of TRC"
    raise InputError(path, "no data files", expected)


def _canonical(split: str, source: DataSource) -> str:
    name = _SPLITS.get(split, split)
    if name not in source.splits:
        expected = " or ".join(source.splits)
        if source.path.is_dir() and name in _FILES:
            expected = _FILES[name]
        raise InputError(source.path, f"no split {shown(split)}", expected)
    return name


def _image_folder(path: Path) -> ImageFolder | None:
    """The images of a data folder: ``images/``, or else the one ``*_images/``."""
    plain, named = path / "images", path / f"{path.resolve().name}_images"
    for folder in (plain, named):
        if folder.is_dir():
            return ImageFolder(folder)
    others = [folder for folder in sorted(path.glob("*_images")) if folder.is_dir()]
    if len(others) > 1:
        found = " and ".join(folder.name for folder in others)
        raise InputError(path, found, "one image folder", "name the right one images")
    return ImageFolder(others[0]) if others else None


def _companion(
    path: Path, quirks: list[Quirk] | None, faults: Faults
) -> dict[str, tuple[str, str]]:
    """Value and place of each id in a file of ``id<TAB>value`` lines; empty without the file."""
    values: dict[str, tuple[str, str]] = {}
    if not path.is_file():
        return values
    for number, line in lines_of(path, quirks, faults):
        where = f"{path}:{number}"
        id, tab, value = line.partition("\t")
        if not line.strip():
            continue
        if not tab or not id:
            faults(InputError(where, shown(line), "image id, tab, value"))
            continue
        if id in values and values[id][0] != value.strip():
            faults(InputError(where, f"a second value for {shown(id)}", "one line an image id"))
            continue
        if not value.strip():
            note(quirks, path, number, "empty value", f"nothing behind the id {shown(id)}")
            continue
        values[id] = (value.strip(), where)
    return values


SUFFIXES = (".jsonl", ".parquet", ".tar")
WORD_LIMIT = 20_000
"""Words of a post. One post alone must not take the memory of a machine."""


def read_shard(path: Path, splitter: WordSplitter, faults: Faults = refuse) -> Iterator[Post]:
    """Posts of one shard in its order, of bounded size each; gold in it is not read.

    Args:
        faults: told of each row that gives no post.

    Raises:
        InputError: the file is missing, of another kind, or breaks off.
    """
    for post in _shard_rows(path, splitter, faults):
        if len(post.words) > WORD_LIMIT:
            found = f"a post of {len(post.words):,} words"
            faults(InputError(post.origin, found, f"at most {WORD_LIMIT:,}", "cut it into several"))
        else:
            yield post


def _shard_rows(path: Path, splitter: WordSplitter, faults: Faults) -> Iterator[Post]:
    match path.suffix:
        case ".jsonl":
            return read_jsonl(path, splitter, None, NO_GOLD, faults)
        case ".parquet":
            return read_parquet(path, splitter, None, NO_GOLD, faults)
        case ".tar":
            return read_tar(path, splitter, faults)
    found = f"a file that ends in {shown(path.suffix)}"
    raise InputError(path, found, "one of " + ", ".join(SUFFIXES))
