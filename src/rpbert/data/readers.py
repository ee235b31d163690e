"""`open_data` gives the posts of a folder or file split by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from rpbert.config.run import Scheme
from rpbert.data import conll
from rpbert.data.images import REGIONS, stored_ids
from rpbert.data.labels import TagReading, lenient_spans, scheme_of
from rpbert.data.reading import SILENT, ImageFolder, Quirk, ReadLog, lines_of, quoted, relation_of
from rpbert.data.tables import GOLD_ONLY, KEYS, NO_GOLD, TABLES, Keys, posts_of, read_table
from rpbert.data.trc import is_trc, read_trc
from rpbert.data.webdataset import read_tar
from rpbert.data.words import SPLITTERS, WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import TEXTS, Post, PostImage, StoredRegions

_DEV = dict.fromkeys(("valid", "dev", "val", "validation"), "dev")
_SPLITS = {"train": "train", **_DEV, "test": "test"}
_POSTS = (*conll.SUFFIXES, *TABLES)
FILES = (*_POSTS, ".tar")
"""Suffixes of files that can be tagged."""
SUFFIXES = tuple(suffix for suffix in FILES if suffix not in (".txt", ".tsv"))
"""Of those that are tagged wherever they lie in a folder; texts may be something else."""
WORD_LIMIT = 20_000
"""Words of a post in a shard. One post alone must not take the memory of a machine."""
PLACEHOLDER = 50, 0.02
"""A caption that more images than so many, and than such a share of a data set, have in common was
made of the picture that a platform or publisher shows in place of lost ones: it says nothing."""


@dataclass(frozen=True)
class DataSource:
    """Posts by split."""

    path: Path  # the data folder, or the single file
    files: dict[str, Path]  # of each split
    splitter: WordSplitter  # cuts a text that comes without words
    faults: Faults = field(default=refuse)  # takes the fault of each faulty row
    scheme: Scheme | None = None  # of the tags; None: what the data tells
    tag_column: int = -1  # of CoNLL files with more than two columns
    types: Collection[str] = ()  # of entities, that a model knows

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: of "train", "dev" and "test", or "all" for a single file."""
        return tuple(self.files)

    def read(
        self, split: str, quirks: list[Quirk] | None = None, notes: list[str] | None = None
    ) -> Iterator[Post]:
        """Posts of a split, read as they are asked for; `quirks` fills meanwhile, and `notes` with
        what is said of the file, else as warnings.
        In a folder ``relations.tsv`` and the files of `rpbert.types.TEXTS` fill gaps by image id,
        ``images.tsv`` names extra images for text files, and ``regions.safetensors`` is read.
        Raises InputError: there is no such split, or what is read is malformed."""
        name = _SPLITS.get(split, split)
        if name not in self.files:
            expected = " or ".join(self.splits)
            if self.path.is_dir() and name in _SPLITS:
                texts = " or ".join(f"{stem}.txt" for stem, of in _SPLITS.items() if of == name)
                expected = f"{texts} ({name}.jsonl, {name}.parquet)"
            raise InputError(self.path, f"no split {quoted(name)}", expected)
        log = ReadLog(quirks, self.faults, notes)
        if self.files[name].suffix == ".csv":
            return read_trc(self.files[name], name, self.splitter, log)
        return self._posts(name, log)

    def _posts(self, split: str, log: ReadLog, keys: Keys = KEYS) -> Iterator[Post]:
        file, survey, post = self.files[split], self._surveys[split], None
        found = {label for of in self._surveys.values() for label in of.types} | {*self.types}
        log = replace(log, tags=TagReading(survey.scheme, not {"OTHER", "MISC"} <= found))
        companions = _Companions(self.path, file, log, survey.layout)
        for post in _read(file, survey.layout, self.splitter, log, keys):
            try:
                whole = companions.completed(post)
            except InputError as fault:
                log.fault(fault)
            else:
                yield whole
        if post is None:
            raise InputError(file, "no post", "a row a post, or a word a line with its tag")
        who = "the model" if self.types else "the train split"
        train = self._surveys.get("train", survey)
        found, known = (
            {*map(log.tags.label, of)} for of in (survey.types, self.types or train.types)
        )
        unknown = ", ".join(sorted(found - known)) + ("" if found & known else ", so all there are")
        columns, has = str(survey.layout or ""), ", ".join(sorted(known))
        told = {
            columns: columns,
            f"tags in {survey.scheme.upper()}, read as IOB2": survey.scheme != "iob2",
            f"types that {who} does not know: {unknown}; it has {has}": not found <= known,
        }
        for line in (line for line, holds in told.items() if holds):
            log.tell(f"{file.name}: {line}")

    @cached_property
    def _surveys(self) -> dict[str, _Survey]:
        """What the gold of each split tells, found by reading it once before."""
        found: dict[str, _Survey] = {}
        log = ReadLog(None, lambda _: None, [], TagReading(None, merges_other=False))
        for split, file in self.files.items():
            is_text, tags = file.suffix in conll.SUFFIXES, []
            layout = conll.layout_of(file, self.tag_column) if is_text else None
            with suppress(InputError):  # reading it again says what is wrong
                posts = _read(file, layout, self.splitter, log, GOLD_ONLY)
                tags = [post.tags for post in posts if post.tags]
            scheme = self.scheme or scheme_of(tags)
            reading = TagReading(scheme, merges_other=False)
            types = {label for of in tags for label, _, _ in lenient_spans(reading.tags(of))}
            found[split] = _Survey(layout, scheme, types)
        return found


class _Survey(NamedTuple):
    """How a file is to be read."""

    layout: conll.Layout | None  # of its columns; None for rows
    scheme: Scheme
    types: set[str]


def _read(
    file: Path, layout: conll.Layout | None, splitter: WordSplitter, log: ReadLog, keys: Keys
) -> Iterator[Post]:
    if layout is None:
        return read_table(file, splitter, log, keys)
    return posts_of(conll.conll_rows(file, layout, log), file, splitter, log, keys)


class _Companions:
    """What the files beside the posts say of images by id; nothing beside a file opened alone."""

    def __init__(self, path: Path, file: Path, log: ReadLog, layout: conll.Layout | None) -> None:
        # Rows name their images themselves.
        self.images = _image_folder(file.parent) if layout and layout.headed else None
        self.further = _values_by_id(path / "images.tsv", log) if self.images else {}
        self.stored = file.parent / REGIONS
        self.regions = stored_ids(self.stored)
        self.relations = read_relations(path / "relations.tsv", log)
        self.texts = {name: _values_by_id(path / file, log) for name, file in TEXTS.items()}
        self.texts["caption"] = _told_apart(self.texts["caption"], log)

    def of(self, id: str) -> PostImage:
        """What is known of an image."""
        texts: dict[str, Any] = {k: of_id[id][0] for k, of_id in self.texts.items() if id in of_id}
        return PostImage(
            relation=self.relations.get(id),
            regions=StoredRegions(self.stored, id) if id in self.regions else None,
            **texts,
        )

    def completed(self, post: Post) -> Post:
        """The post with what it lacks of its first image, and with further images by their ids.
        Raises InputError: an id is no name of a file."""
        more: list[PostImage] = []
        if self.images:
            post = post.with_(image=self.images.find(post.id, post.origin))
            ids, where = self.further.get(post.id, ("", ""))
            more = [replace(self.of(id), image=self.images.find(id, where)) for id in ids.split()]
        own, known = post.images[0], self.of(post.id)
        texts: dict[str, Any] = {name: text for name in TEXTS if (text := getattr(own, name))}
        first = replace(
            known,
            image=own.image,
            relation=known.relation if own.relation is None else own.relation,
            **texts,
        )
        return replace(post, images=(first, *post.images[1:], *more))


def open_data(
    path: str | Path,
    splitter: WordSplitter | None = None,
    faults: Faults = refuse,
    **reading: Any,
) -> DataSource:
    """Open a data folder, a TRC folder, or a file of posts. `splitter` cuts a text that comes
    without words (None: marks stay on their words); `faults` takes the fault of each faulty row as
    it is read, such as `LeftOut`; `reading` is `scheme`, `tag_column` and `types` of `DataSource`.
    """
    path, splitter = Path(path), splitter or SPLITTERS["joined"]
    if path.is_dir():
        return DataSource(path, _files_of(path), splitter, faults, **reading)
    expected = f"a data folder, or a file of {', '.join(_POSTS)}"
    if not path.is_file():
        raise InputError(path, "nothing", expected)
    if path.suffix not in _POSTS:
        raise InputError(path, f"a file that ends in {quoted(path.suffix)}", expected)
    return DataSource(path, {_SPLITS.get(path.stem, "all"): path}, splitter, faults, **reading)


def _files_of(folder: Path) -> dict[str, Path]:
    """The file of each split of a folder."""
    files: dict[str, Path] = {}
    for stem, split in _SPLITS.items():
        for file in (folder / (stem + suffix) for suffix in _POSTS):
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
    expected = f"train, valid (or dev) or test as {', '.join(_POSTS)}, or the labels of TRC"
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
    """The relation of each image id in ``relations.tsv``; none without the file."""
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


def _told_apart(captions: dict[str, tuple[str, str]], log: ReadLog) -> dict[str, tuple[str, str]]:
    """The captions without those of a placeholder, which are noted."""
    counts = Counter(caption for caption, _ in captions.values())
    most = max(PLACEHOLDER[0], PLACEHOLDER[1] * len(captions))
    for caption, where in captions.values():
        if counts[caption] > most:
            file, _, line = where.rpartition(":")
            detail = f"{quoted(caption)}, as {counts[caption]:,} images have: read as no caption"
            log.note(Path(file), line, "placeholder caption", detail)
    return {id: known for id, known in captions.items() if counts[known[0]] <= most}


def read_shard(path: Path, splitter: WordSplitter, faults: Faults = refuse) -> Iterator[Post]:
    """Posts of one shard in its order, of bounded size each; gold in it is not given."""
    log = ReadLog(fault=faults)
    if path.suffix == ".tar":
        posts = read_tar(path, splitter, log)
    elif path.suffix in TABLES:
        posts = read_table(path, splitter, log, NO_GOLD)
    else:
        source = open_data(path, splitter, faults)
        posts = source._posts(source.splits[0], replace(log, notes=[]), NO_GOLD)
    for post in posts:
        if len(post.words) > WORD_LIMIT:
            long = f"a post of {len(post.words):,} words"
            faults(InputError(post.origin, long, f"at most {WORD_LIMIT:,}", "cut it into several"))
        else:
            yield post
