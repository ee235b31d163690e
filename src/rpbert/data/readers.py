"""`open_data` gives the posts of a folder or file split by split.
The text files of a folder hold ``IMGID:`` lines and ``word<TAB>tag`` lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rpbert.data.images import REGIONS, stored_ids
from rpbert.data.labels import is_tag, normalise
from rpbert.data.reading import (
    SILENT,
    ImageFolder,
    Quirk,
    ReadLog,
    lines_of,
    note_words,
    quoted,
    relation_of,
)
from rpbert.data.tables import NO_GOLD, read_table
from rpbert.data.trc import is_trc, read_trc
from rpbert.data.webdataset import read_tar
from rpbert.data.words import SPLITTERS, WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import TEXTS, Post, PostImage, StoredRegions

_SPLITS = {"train": "train", "valid": "dev", "dev": "dev", "test": "test"}
_TABLES = (".jsonl", ".parquet")
SUFFIXES = (*_TABLES, ".tar")  # files that can be tagged as shards
WORD_LIMIT = 20_000
"""Words of a post in a shard. One post alone must not take the memory of a machine."""
_HEADER, _TAB = "IMGID:", "\t"
NO_BLANK_END = "no blank line at the end"
PLACEHOLDER = 50, 0.02
"""A caption that more images than so many, and than such a share of a data set, have in common was
made of the picture that a platform or publisher shows in place of lost ones: it says nothing."""
_Block: TypeAlias = tuple[list[tuple[int, str]], tuple[int, str, str] | None]
"""The numbered lines of a post, and the quirk of how it ends."""


@dataclass(frozen=True)
class DataSource:
    """Posts by split."""

    path: Path  # the data folder, or the single file
    files: dict[str, Path]  # of each split
    splitter: WordSplitter  # cuts a text that comes without words
    faults: Faults = field(default=refuse)  # takes the fault of each faulty row

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: of "train", "dev" and "test", or "all" for a single file."""
        return tuple(self.files)

    def read(self, split: str, quirks: list[Quirk] | None = None) -> Iterator[Post]:
        """Posts of a split, read as they are asked for; `quirks` fills meanwhile.
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
    """What the files beside the posts say of images by id; nothing beside a file opened alone."""

    def __init__(self, path: Path, file: Path, log: ReadLog) -> None:
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

    def completed(self, post: Post, more: Sequence[tuple[str, Path]] = ()) -> Post:
        """The post with what it lacks of its first image, and with more images by their ids."""
        own, known = post.images[0], self.of(post.id)
        texts: dict[str, Any] = {name: text for name in TEXTS if (text := getattr(own, name))}
        first = replace(
            known,
            image=own.image,
            relation=known.relation if own.relation is None else own.relation,
            **texts,
        )
        extra = (replace(self.of(id), image=image) for id, image in more)
        return replace(post, images=(first, *post.images[1:], *extra))


def open_data(
    path: str | Path, splitter: WordSplitter | None = None, faults: Faults = refuse
) -> DataSource:
    """Open a data folder, a TRC folder, a ``.jsonl`` or a ``.parquet`` file. `splitter` cuts a text
    that comes without words (None: marks stay on their words); `faults` takes the fault of each
    faulty row as it is read, such as `LeftOut`."""
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
    """Posts of one shard in its order, of bounded size each; gold in it is not read."""
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


def read_conll(path: Path, images: ImageFolder | None, log: ReadLog) -> Iterator[Post]:
    """Posts of one text file, in its order; a fault leaves its post out. Where `log.fault` returns,
    a space between word and tag is read as the tab."""
    for lines, end in _blocks(path, log):
        post = None
        try:
            post = _post(lines, path, images, log) if lines else None
        except InputError as fault:
            log.fault(fault)
        if end:
            log.note(path, *end)
        if post is not None:
            first, *numbers = (number for number, _ in lines)
            if not post.words:
                log.note(path, first, "post without words", f"id {quoted(post.id)}; kept")
            note_words(log, path, numbers, post.words, post.tags or ())
            yield post


def _blocks(path: Path, log: ReadLog) -> Iterator[_Block]:
    """The lines of each post; none of a post of which a line cannot be read."""
    lines: list[tuple[int, str]] = []
    end: tuple[int, str, str] | None
    spoiled, found, number = False, False, 0

    def spoil(fault: InputError) -> None:
        nonlocal spoiled
        log.fault(fault)
        spoiled = True

    for number, line in lines_of(path, ReadLog(log.quirks, spoil)):
        header, blank, end = _is_header(line), not line.strip(" "), None
        if header and lines:
            end = number, "no blank line between posts", "a new post all the same"
        elif blank and line:
            end = number, "spaces on a blank line", "ends the post"
        if header or blank:
            yield ([] if spoiled else lines), end
            lines, spoiled = [], False
        if not blank:
            lines.append((number, line))
        found = found or header
    if lines:
        end = number, NO_BLANK_END, "the last post ends with the file"
        yield ([] if spoiled else lines), end
    if not found:
        raise InputError(path, "no post", "posts, each begun by an IMGID:<image id> line")


def _is_header(line: str) -> bool:
    return line.startswith(_HEADER) and _TAB not in line


def _post(
    lines: list[tuple[int, str]], path: Path, images: ImageFolder | None, log: ReadLog
) -> Post:
    (first, header), *rest = lines
    origin = f"{path}:{first}"
    if not _is_header(header):
        if _TAB not in header:
            raise _no_line(origin, header)
        found = f"the word {quoted(header.rpartition(_TAB)[0])} outside any post"
        raise InputError(origin, found, "an IMGID: line first")
    id = header.removeprefix(_HEADER).strip()
    if not id:
        raise InputError(origin, "IMGID: without an id", "IMGID:<image id>")
    words, tags = [], []
    for number, line in rest:
        word, tag = _word_and_tag(line, f"{path}:{number}", log)
        words.append(word)
        tags.append(normalise(tag))
        if tags[-1] != tag:
            log.note(path, number, "OTHER for MISC", f"{tag} read as {tags[-1]}")
    image = images.find(id, origin) if images else None
    return Post.from_words(id, tuple(words), tags=tuple(tags), image=image, origin=origin)


def _word_and_tag(line: str, where: str, log: ReadLog) -> tuple[str, str]:
    # The tag follows the last tab: a word may hold one, a tag never does.
    word, tab, tag = line.rpartition(_TAB)
    if tab:
        if not is_tag(tag):
            expected = "O, B-<type> or I-<type> behind the tab"
            raise InputError(where, f"the tag {quoted(tag)}", expected)
        return word, tag
    word, _, tag = line.rpartition(" ")
    fault = _no_line(where, line)
    if not word or not is_tag(tag):
        raise fault
    log.fault(fault)
    return word, tag


def _no_line(where: str, line: str) -> InputError:
    expected = "an IMGID:<image id> line, a word<TAB>tag line or a blank line"
    return InputError(where, quoted(line), expected, "set a tab between word and tag")
