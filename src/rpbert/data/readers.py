"""The one door to data: `open_data` takes a folder or file and gives its posts split by split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rpbert.data.conll import read_conll
from rpbert.data.images import REGIONS, stored_ids
from rpbert.data.reading import SILENT, ImageFolder, Quirk, ReadLog, lines_of, quoted, relation_of
from rpbert.data.tables import NO_GOLD, read_table
from rpbert.data.trc import is_trc, read_trc
from rpbert.data.webdataset import read_tar
from rpbert.data.words import SPLITTERS, WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post, PostImage, StoredRegions

_SPLITS = {"train": "train", "valid": "dev", "dev": "dev", "test": "test"}
_TABLES = (".jsonl", ".parquet")
SUFFIXES = (*_TABLES, ".tar")
"""Files that can be tagged as shards."""
WORD_LIMIT = 20_000
"""Words of a post in a shard. One post alone must not take the memory of a machine."""


@dataclass(frozen=True)
class DataSource:
    """Posts by split.

    Attributes:
        path: the data folder, or the single file.
        files: the file of each split: CoNLL with IMGID, JSON lines, Parquet, or for both splits of
            TRC its labels.
        splitter: cuts a text that comes without words.
        faults: takes the fault of each faulty row.
    """

    path: Path
    files: dict[str, Path]
    splitter: WordSplitter
    faults: Faults = field(default=refuse)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: of "train", "dev" and "test", or "all" for a single file."""
        return tuple(self.files)

    def read(self, split: str, quirks: list[Quirk] | None = None) -> Iterator[Post]:
        """Posts of a split, read as they are asked for; `quirks` fills meanwhile.

        Files of a folder that name images by id (``captions.tsv``, ``image_texts.tsv``,
        ``relations.tsv``) fill gaps; regions are those of ``regions.safetensors`` beside the file.
        Posts of text files show the extra images that ``images.tsv`` names.

        Raises:
            InputError: there is no such split, or what is read is malformed.
        """
        name = _SPLITS.get(split, split)
        if name not in self.files:
            expected = " or ".join(self.splits)
            if self.path.is_dir() and name in _SPLITS:
                texts = " or ".join(f"{stem}.txt" for stem, of in _SPLITS.items() if of == name)
                expected = f"{texts} ({name}.jsonl, {name}.parquet)"
            raise InputError(self.path, f"no split {quoted(name)}", expected)
        file, log = self.files[name], ReadLog(quirks, self.faults)
        if file.suffix == ".csv":
            return read_trc(file, name, self.splitter, log)
        return self._posts(file, log)

    def _posts(self, file: Path, log: ReadLog) -> Iterator[Post]:
        companions = _Companions(self.path, file, log)
        if file.suffix == ".txt":
            images = _image_folder(self.path)
            extra = _values_by_id(self.path / "images.tsv", log) if images else {}
            for post in read_conll(file, images, log):
                ids, where = extra.get(post.id, ("", ""))
                more = [(id, images.find(id, where)) for id in ids.split()] if images else []
                yield companions.completed(post, more)
            return
        empty = True
        for post in read_table(file, self.splitter, log):
            yield companions.completed(post)
            empty = False
        if empty:
            raise InputError(file, "no rows", "a row a post")


class _Companions:
    """What the files beside the posts say of images, each by its id."""

    def __init__(self, path: Path, file: Path, log: ReadLog) -> None:
        self.stored = file.parent / REGIONS
        self.regions = stored_ids(self.stored)
        # Of a single file that was opened by itself there are none.
        self.captions = _values_by_id(path / "captions.tsv", log)
        self.relations = read_relations(path / "relations.tsv", log)
        self.image_texts = _values_by_id(path / "image_texts.tsv", log)

    def of(self, id: str) -> PostImage:
        """What is known of an image."""
        return PostImage(
            caption=self.captions.get(id, (None, ""))[0],
            relation=self.relations.get(id),
            regions=StoredRegions(self.stored, id) if id in self.regions else None,
            image_text=self.image_texts.get(id, (None, ""))[0],
        )

    def completed(self, post: Post, more: Sequence[tuple[str, Path]] = ()) -> Post:
        """The post with what it lacks of its first image, and with more images by their ids."""
        own, known = post.images[0], self.of(post.id)
        first = replace(
            own,
            caption=own.caption or known.caption,
            relation=known.relation if own.relation is None else own.relation,
            regions=known.regions,
            image_text=own.image_text or known.image_text,
        )
        extra = (replace(self.of(id), image=image) for id, image in more)
        return replace(post, images=(first, *post.images[1:], *extra))


def open_data(
    path: str | Path, splitter: WordSplitter | None = None, faults: Faults = refuse
) -> DataSource:
    """Open a data folder, a TRC folder, a ``.jsonl`` or a ``.parquet`` file.

    Args:
        path: the folder or file.
        splitter: cuts a text that comes without words; None: marks stay on their words.
        faults: takes the fault of each faulty row as it is read, such as `LeftOut`.

    Raises:
        InputError: nothing of the kind is at `path`.
    """
    path, splitter = Path(path), splitter or SPLITTERS["joined"]
    if path.is_dir():
        return DataSource(path, _files_of(path), splitter, faults)
    expected = "a data folder, a .jsonl or a .parquet file"
    if not path.is_file():
        raise InputError(path, "nothing", expected)
    if path.suffix not in _TABLES:
        hint = "give the folder of the file" if path.suffix == ".txt" else ""
        raise InputError(path, f"a file that ends in {quoted(path.suffix)}", expected, hint)
    return DataSource(path, {_SPLITS.get(path.stem, "all"): path}, splitter, faults)


def _files_of(folder: Path) -> dict[str, Path]:
    """The file of each split of a folder."""
    files: dict[str, Path] = {}
    for stem, split in _SPLITS.items():
        for file in (folder / (stem + suffix) for suffix in (".txt", *_TABLES)):
            if not file.is_file():
                continue
            if split in files:
                found = f"both {files[split].name} and {file.name}"
                raise InputError(folder, found, "one file a split", "move one of them away")
            files[split] = file
    if files:
        return files
    labels = [file for file in sorted(folder.glob("*.csv")) if is_trc(file)]
    if len(labels) > 1:
        found = f"{len(labels)} files of relation labels"
        raise InputError(folder, found, "one .csv with tweet_id and image_adds")
    if labels:
        return {"train": labels[0], "test": labels[0]}
    expected = "train, valid (or dev) or test as .txt, .jsonl or .parquet, or the labels of TRC"
    raise InputError(folder, "no data files", expected)


def _image_folder(path: Path) -> ImageFolder | None:
    """The images of a data folder: ``images/``, or else the one ``*_images/``."""
    for folder in (path / "images", path / f"{path.resolve().name}_images"):
        if folder.is_dir():
            return ImageFolder(folder)
    others = [folder for folder in sorted(path.glob("*_images")) if folder.is_dir()]
    if len(others) > 1:
        found = " and ".join(folder.name for folder in others)
        raise InputError(path, found, "one image folder", "name the right one images")
    return ImageFolder(others[0]) if others else None


def read_relations(path: Path, log: ReadLog = SILENT) -> dict[str, float]:
    """The relation of each post in a file of lines id, tab, 0, 1 or a probability between.

    A file that is not there has none.

    Raises:
        InputError: a line is malformed.
    """
    relations = {}
    for id, (value, where) in _values_by_id(path, log).items():
        try:
            relations[id] = relation_of(value, where)
        except InputError as fault:
            log.fault(fault)
    return relations


def _values_by_id(path: Path, log: ReadLog) -> dict[str, tuple[str, str]]:
    """Value and place of each id in a file of ``id<TAB>value`` lines; empty without the file."""
    values: dict[str, tuple[str, str]] = {}
    for number, line in lines_of(path, log) if path.is_file() else ():
        where = f"{path}:{number}"
        id, tab, value = line.partition("\t")
        value = value.strip()
        if not line.strip():
            continue
        if not tab or not id:
            log.fault(InputError(where, quoted(line), "image id, tab, value"))
        elif value != values.get(id, (value, ""))[0]:
            log.fault(InputError(where, f"a second value for {quoted(id)}", "one line an image id"))
        elif not value:
            log.note(path, number, "empty value", f"nothing behind the id {quoted(id)}")
        else:
            values[id] = (value, where)
    return values


def read_shard(path: Path, splitter: WordSplitter, faults: Faults = refuse) -> Iterator[Post]:
    """Posts of one shard in its order, of bounded size each; gold in it is not read.

    Args:
        faults: takes the fault of each row that gives no post.

    Raises:
        InputError: the file is missing, of another kind, or ends early.
    """
    log = ReadLog(fault=faults)
    if path.suffix not in SUFFIXES:
        found = f"a file that ends in {quoted(path.suffix)}"
        raise InputError(path, found, "one of " + ", ".join(SUFFIXES))
    if path.suffix == ".tar":
        posts = read_tar(path, splitter, log)
    else:
        posts = read_table(path, splitter, log, NO_GOLD)
    for post in posts:
        if len(post.words) > WORD_LIMIT:
            found = f"a post of {len(post.words):,} words"
            faults(InputError(post.origin, found, f"at most {WORD_LIMIT:,}", "cut it into several"))
        else:
            yield post
