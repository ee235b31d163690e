"""Posts from WebDataset shards: tar files in which members of one key are adjacent.
A post is ``<key>.txt`` (its text) or ``<key>.json`` (a row as in JSON lines), and optionally an
image ``<key>.jpg``, ``.png``, … Members with other suffixes are skipped. Nothing is unpacked:
members are read in order, each up to its limit, and a member that a tool might write elsewhere
(``..``, an absolute path, a link, a device) is refused."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from rpbert.data.images import BYTE_LIMIT
from rpbert.data.reading import IMAGE_SUFFIXES, LINE_LIMIT, SILENT, ReadLog, Row, Values, quoted
from rpbert.data.tables import NO_GOLD, json_object, posts_of
from rpbert.data.words import WordSplitter
from rpbert.errors import InputError
from rpbert.storage.writing import stays_below
from rpbert.types import Post

_HEADER_LIMIT = 2**20  # bytes of the headers of one member, which may be lists of any length
_TEXTS = (".txt", ".json")
_Member: TypeAlias = tuple[str, str, bytes | str | None]
"""The key and suffix of a member of a tar with its content: a text is why it cannot be read, None
that it need not be. An image too large has one byte too many."""
# What the library raises; for a header that announces another one it calls itself.
_DAMAGE = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


def read_tar(path: Path, splitter: WordSplitter, log: ReadLog = SILENT) -> Iterator[Post]:
    """Posts of a WebDataset shard, in its order; gold in it is not read."""
    try:
        yield from posts_of(_rows(path), path, splitter, log, NO_GOLD)
    except _Damaged as damage:
        raise InputError(path, str(damage), "an uncompressed tar file") from damage


class _Damaged(Exception):
    """Why a tar cannot be read further; an `InputError` would be the fault of one row."""


def _rows(path: Path) -> Iterator[Row]:
    for key, members in groupby(_members(path), key=lambda member: member[0]):
        yield key, partial(_values, key, members, f"{path}:{key}")


def _values(key: str, members: Iterator[_Member], where: str) -> Values | None:
    """The row that the members of a key make, None where none of them is read."""
    values: dict[str, Any] = {"id": key}
    held: set[str] = set()
    for _, suffix, content in members:
        if content is None:
            continue
        if isinstance(content, str):
            found = f"the member {quoted(key + suffix)}, {content}"
            raise InputError(where, found, "plain files below the folder of the archive")
        kind = "image" if suffix in IMAGE_SUFFIXES else suffix
        if kind in held:
            raise InputError(where, f"{kind} twice", "one of a kind for each key")
        held.add(kind)
        if kind == "image":
            values["image"] = content
        elif kind == ".txt":
            values.setdefault("text", _text(content, where).removesuffix("\n"))
        else:
            row = json_object(_text(content, where), where)
            values |= {name: row[name] for name in NO_GOLD - {"image"} & row.keys()}
    return values if held else None


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{content[error.start]:02x} in a text"
        raise InputError(where, found, "UTF-8 text") from None


def _members(path: Path) -> Iterator[_Member]:
    """The members of a tar in order, of the content only what posts are made of."""
    read = 0
    try:
        with path.open("rb") as raw:
            file: Any = _Forward(raw)
            more = True
            while more:  # archives may have been joined
                # Mode "r:" takes no compressed file: what is small on disk is small in memory.
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    while info := tar.next():
                        vars(tar).update(members=[], pax_headers={})  # else it keeps all of them
                        read += 1
                        yield _member(tar, info, file)
                        file.allowance = _HEADER_LIMIT
                    more = file.passes_end(tar.offset)
    except FileNotFoundError:
        raise InputError(path, "nothing", "a .tar file") from None
    except _DAMAGE as error:
        raise _Damaged(f"no readable tar after member {read} ({quoted(str(error))})") from error


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, file: _Forward) -> _Member:
    folder, slash, base = info.name.rpartition("/")
    stem, _, extension = base.partition(".")
    key, suffix = folder + slash + stem, "." + extension.lower()
    if info.isdir():
        return key, suffix, None
    if not stays_below(info.name):
        return key, suffix, "which leads out of the archive"
    if not info.isreg() or info.issparse():
        return key, suffix, "a link" if info.issym() or info.islnk() else "no plain file"
    if suffix not in IMAGE_SUFFIXES + _TEXTS:
        return key, suffix, None
    # An image that is too large is read one byte too far, so that decoding calls it so.
    limit = LINE_LIMIT if suffix in _TEXTS else BYTE_LIMIT + 1
    if suffix in _TEXTS and info.size > limit:
        return key, suffix, f"of {info.size:,} bytes, more than {limit:,}"
    file.allowance = limit + _HEADER_LIMIT  # the reader looks a little ahead
    reader = tar.extractfile(info)
    content = reader.read(limit) if reader else b""
    if len(content) < min(info.size, limit):
        raise tarfile.ReadError("unexpected end of data")
    return key, suffix, content


class _Forward:
    """Reads forward only and within `allowance`: a header can ask for any size and position."""

    allowance = _HEADER_LIMIT

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.tell = file, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowance:
            raise tarfile.ReadError("a header that is too long")
        self.allowance -= size
        return self._file.read(size)

    def seek(self, position: int) -> None:
        if position < self._file.tell():
            raise tarfile.ReadError("a header that points back")
        self._file.seek(position)

    def passes_end(self, position: int) -> bool:
        """Whether another archive follows the blocks of zeros that end one. Refuses an end without
        them: `tarfile` ends wherever it cannot read."""
        self._file.seek(position)
        zeros = block = self._file.read(tarfile.BLOCKSIZE)
        while block and not block.strip(b"\0"):
            block = self._file.read(tarfile.BLOCKSIZE)
        if len(zeros) < tarfile.BLOCKSIZE or zeros is block:
            raise tarfile.ReadError("unexpected end of data")
        self._file.seek(-len(block), os.SEEK_CUR)
        return block != b""
