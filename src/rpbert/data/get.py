"""Known public data sets, fetched into a data folder: resumed, verified, joined by image id.
``sources.yaml`` lists them. Archives are never unpacked: of their members, names and contents are
read up to a limit, and one that a tool might write elsewhere is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import yaml

from rpbert.data.images import BYTE_LIMIT
from rpbert.data.readers import open_data
from rpbert.data.reading import IMAGE_SUFFIXES, lines_of, quoted
from rpbert.errors import InputError, did_you_mean, reason_of
from rpbert.storage.manifest import folder_written_whole
from rpbert.storage.writing import stays_below
from rpbert.types import Post

TRIES = 5  # of a connection that breaks; each goes on where the one before ended
TIMEOUT = 60.0  # seconds without a byte
MEMBER_LIMIT = 2**26  # bytes of a text in an archive
Advance: TypeAlias = Callable[[int], object]  # called with the number of bytes that have come

# What a file of another layout raises; an `InputError` of its own is a ValueError.
_UNLIKE = (ValueError, LookupError, TypeError, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class Source:
    """A file at an address, and what becomes of it."""

    url: str
    to: str  # name in the data folder
    bytes: int  # at most, about, without a checksum
    sha256: str = ""  # empty: recorded at the first download
    layout: str = "as_is"  # key of `LAYOUTS`


@dataclass(frozen=True)
class DataSet:
    """A public data set."""

    name: str
    what: str
    licence: str  # as its source states it
    paper: str
    missing: str  # what no address has, and where else to look
    files: tuple[Source, ...]

    def chosen(self, images: bool) -> list[Source]:
        """The files to fetch. Raises InputError: `images`, and no address has them."""
        if images and all(file.to != "images" for file in self.files):
            raise InputError("--images", f"no address for {self.name}", self.missing)
        return [file for file in self.files if images or file.to != "images"]


_TABLE = yaml.safe_load((files("rpbert.data") / "sources.yaml").read_text("utf-8"))
SOURCES: dict[str, DataSet] = {
    name: DataSet(name, **{**entry, "files": tuple(Source(**file) for file in entry["files"])})
    for name, entry in _TABLE.items()
}


def data_set(name: str) -> DataSet:
    """A known data set. Raises InputError: none of that name."""
    if name not in SOURCES:
        raise InputError("NAME", name, f"one of {', '.join(SOURCES)}", did_you_mean(name, SOURCES))
    return SOURCES[name]


def get(
    data: DataSet, output: Path, *, images: bool = False, advance: Advance = lambda _: None
) -> dict[str, Any]:
    """Fetch a data set into a new data folder, all of it or nothing; what ``sources.json`` holds.
    Raises InputError: `output` holds files, an address does not answer, or what it gives is not
    what is known of it. What has come is kept beside `output` until the folder is whole."""
    chosen = data.chosen(images)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(output, "files", "a new folder", "give another --output")
    parts = output.with_name(f".{output.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {**asdict(data), "files": []}
    with folder_written_whole(output) as new:
        for number, source in enumerate(chosen):
            part = parts / f"{number}-{source.to}"
            digest = download(source, part, advance)
            own = {"sha256": digest, "known": bool(source.sha256)}
            record["files"].append(asdict(source) | own)
            try:
                LAYOUTS[source.layout](part, new / source.to)
            except _UNLIKE as error:
                found = f"no {source.layout} that can be read ({reason_of(error)})"
                raise InputError(source.url, found, "what its source had") from error
        (new / "sources.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(parts)
    return record


def download(source: Source, part: Path, advance: Advance = lambda _: None) -> str:
    """Fetch a file, going on from what is there of it, and return its SHA-256."""
    import httpx

    for left in range(TRIES - 1, -1, -1):
        try:
            _transfer(source, part, advance)
            break
        except httpx.HTTPStatusError as error:
            raise InputError(source.url, str(error.response.status_code), "the file") from None
        except httpx.HTTPError as error:
            if not left:
                found, hint = reason_of(error), "the same command goes on from there"
                raise InputError(source.url, found, "an answer", hint) from None
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 not in ("", digest):
        part.unlink()
        raise InputError(source.url, f"SHA-256 {digest}", source.sha256, "nothing of it is kept")
    return digest


def _transfer(source: Source, part: Path, advance: Advance) -> None:
    """One try. Raises InputError: more bytes come than the file has."""
    import httpx

    have = part.stat().st_size if part.exists() else 0
    head = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    limit = source.bytes if source.sha256 else 2 * source.bytes
    options: Any = {"headers": head, "follow_redirects": True, "timeout": TIMEOUT}
    with httpx.stream("GET", source.url, **options) as answer:
        if have and answer.status_code == 416:  # all of it is there, or too much
            return
        answer.raise_for_status()
        with part.open("ab" if answer.status_code == 206 else "wb") as file:
            for piece in answer.iter_raw():
                file.write(piece)
                advance(len(piece))
                if file.tell() > limit:
                    file.truncate(0)
                    raise InputError(source.url, f"more than {limit:,} bytes", "the file alone")


def _members(
    path: Path, wanted: Callable[[PurePosixPath], bool], limit: int = MEMBER_LIMIT
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The wanted files of a zip, each of at most `limit` bytes."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name, found = PurePosixPath(info.filename), f"the member {quoted(info.filename)}"
            if not stays_below(info.filename):
                raise InputError(path, f"{found}, which leads out", "files below its folder")
            if info.is_dir() or not wanted(name):
                continue
            with archive.open(info) as member:
                content = member.read(limit + 1)
            if len(content) > limit:
                raise InputError(path, f"{found} of more than {limit:,} bytes", "less")
            yield name, content


def _posts(folder: Path) -> dict[str, list[Post]]:
    """The posts of the text files that are written already, by file."""
    data = open_data(folder)
    return {file.stem: list(data.read(split)) for split, file in data.files.items()}


def _write_rows(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Lines of id, tab, value; of an id that comes twice the first."""
    values: dict[str, str] = {}
    for id, value in rows:
        values.setdefault(id, value)
    lines = (f"{id}\t{value}\n" for id, value in values.items() if value)
    path.write_text("".join(lines), encoding="utf-8")


def _captions(path: Path, to: Path) -> None:
    """Lines ``ID.jpg :caption``."""
    cut = (line.partition(".jpg :") for _, line in lines_of(path))
    _write_rows(to, ((id, " ".join(caption.split())) for id, _, caption in cut))


def _knowledge(path: Path, to: Path) -> None:
    """A post a block, as in the text files: its words, ``<EOS>``, and what is known of it."""
    members = _members(path, lambda name: name.suffix == ".txt")
    texts = {name.stem: content.decode() for name, content in members}

    rows: list[tuple[str, str]] = []
    for stem, posts in _posts(to.parent).items():
        blocks = texts[stem].replace("\r\n", "\n").strip("\n").split("\n\n")
        for post, block in zip(posts, blocks, strict=False):  # the last one may be missing
            words, _, known = block.partition("<EOS>\tX")
            if [line.rpartition("\t")[0] for line in words.splitlines()] != list(post.words):
                raise ValueError(f"other words than those of post {post.id}")
            told = " ".join(line.split("\t")[0] for line in known.splitlines())
            rows.append((post.id, told.strip()))
    _write_rows(to, rows)


def _grounding(path: Path, to: Path) -> None:
    """Of each annotated post, whether a person marked a box: then it has a file ``ID.xml``."""
    boxes, annotated = set(), set()
    for name, content in _members(path, lambda name: "Twitter10000_v2.0" in name.parts):
        if name.suffix == ".xml":
            boxes.add(name.stem)
        elif name.suffix == ".txt":
            lines = content.decode().splitlines()
            annotated |= {line[6:].strip() for line in lines if line.startswith("IMGID:")}
    ids = [post.id for posts in _posts(to.parent).values() for post in posts]
    _write_rows(to, ((id, str(int(id in boxes))) for id in ids if id in annotated))


def _images(path: Path, to: Path) -> None:
    """The images whose names are ids of posts."""
    ids = {post.id for posts in _posts(to.parent).values() for post in posts}
    to.mkdir()
    named = {id + suffix for id in ids for suffix in IMAGE_SUFFIXES}
    for name, content in _members(
        path, lambda name: f"{name.stem}{name.suffix.lower()}" in named, BYTE_LIMIT
    ):
        (to / name.name).write_bytes(content)
    if not any(to.iterdir()):
        raise ValueError("no image is named by the id of a post")


def _trc_texts(path: Path, to: Path) -> None:
    """JSON with ``words`` and ``image_id`` (T<tweet id>.jpg) of each tweet."""
    rows = json.loads(path.read_text("utf-8"))
    posts = ({"id": row["image_id"][1:-4], "text": " ".join(row["words"])} for row in rows)
    to.write_text("".join(json.dumps(post) + "\n" for post in posts), encoding="utf-8")


def _conll(path: Path, to: Path) -> None:
    """Lines of word, tab, tag and blank lines, without ids: posts are numbered."""
    posts: list[list[str]] = [[]]
    for _, line in lines_of(path):
        if not line.strip("\t"):
            posts.append([])
        elif line.strip():  # one of a single space lies within a post
            posts[-1].append(line)
    numbered = enumerate(filter(None, posts), 1)
    text = ("\n".join([f"IMGID:{to.stem}_{n}", *lines, "\n"]) for n, lines in numbered)
    to.write_text("".join(text), encoding="utf-8")


LAYOUTS: dict[str, Callable[[Path, Path], object]] = {
    "as_is": shutil.copyfile,
    "captions": _captions,
    "knowledge": _knowledge,
    "grounding": _grounding,
    "images": _images,
    "trc_texts": _trc_texts,
    "conll": _conll,
}
