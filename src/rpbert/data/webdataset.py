"""Posts from WebDataset shards: tar files in which members of one key stand side by side.

A post is ``<key>.txt`` (its text) or ``<key>.json`` (a row as in JSON lines), and beside it, where
it has one, an image ``<key>.jpg``, ``.png``, … Members with other suffixes are passed over unread.
Nothing is ever unpacked: members are read one after the other, each up to its limit, and a member
that a tool might write elsewhere (``..``, an absolute path, a link, a device) is refused.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from rpbert.data.images import BYTE_LIMIT
from rpbert.data.reading import IMAGE_SUFFIXES, LINE_LIMIT, shown
from rpbert.data.tables import NO_GOLD, json_object, post_of_values
from rpbert.data.words import WordSplitter
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post

_HEADER_LIMIT = 2**20  # bytes of the headers of one member; some are lists as long as they please
_TEXTS = (".txt", ".json")
# What the library raises; behind a header that announces another one it calls itself.
_DAMAGE = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


def read_tar(path: Path, splitter: WordSplitter, faults: Faults = refuse) -> Iterator[Post]:
    """Posts of a WebDataset shard, in its order; gold in it is not read.

    Args:
        faults: told of a key that gives no post.

    Raises:
        InputError: the file is missing or no tar, or breaks off.
    """
    sample = _Sample("", path)
    for member in _members(path):
        key, suffix = _key(member.name)
        if key != sample.key:
            yield from sample.posts(splitter, faults)
            sample = _Sample(key, path)
        sample.add(suffix, member)
    yield from sample.posts(splitter, faults)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a tar.

    Attributes:
        content: what it holds, of an image one byte beyond the limit at most; None if not read.
        fault: why it is refused; empty if it is not.
    """

    name: str
    content: bytes | None
    fault: str


@dataclass
class _Sample:
    """What the members of one key have brought so far."""

    key: str
    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    image: bytes | None = None
    fault: InputError | None = None
    held: set[str] = field(default_factory=set)

    def add(self, suffix: str, member: _Member) -> None:
        """Take a member in; the first fault is the one that is told."""
        try:
            self._add(suffix, member)
        except InputError as fault:
            self.fault = self.fault or fault

    def _add(self, suffix: str, member: _Member) -> None:
        if member.fault:
            expected = "plain files below the folder of the archive"
            raise InputError(
                self.where, f"the member {shown(member.name)}, {member.fault}", expected
            )
        if member.content is None:
            return
        kind = "an image" if suffix in IMAGE_SUFFIXES else suffix
        if kind in self.held:
            raise InputError(self.where, f"{kind} twice", "one of a kind for each key")
        self.held.add(kind)
        if suffix in IMAGE_SUFFIXES:
            self.image = member.content
            return
        try:
            text = member.content.decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"the byte 0x{member.content[error.start]:02x} in {shown(member.name)}"
            raise InputError(self.where, found, "UTF-8 text") from None
        if suffix == ".txt":
            self.values.setdefault("text", text.removesuffix("\n"))
        else:
            row = json_object(text, self.where)
            self.values |= {key: row[key] for key in NO_GOLD - {"image"} & row.keys()}

    @property
    def where(self) -> str:
        return f"{self.path}:{self.key}"

    def posts(self, splitter: WordSplitter, faults: Faults) -> Iterator[Post]:
        """The post, unless there is none or it is at fault."""
        if self.fault is None and not self.held:
            return
        try:
            if self.fault is not None:
                raise self.fault
            post = post_of_values({"id": self.key, **self.values}, self.path, 0, splitter)
        except InputError as fault:
            faults(InputError(self.where, fault.found, fault.expected, fault.hint))
            return
        yield post.with_(image=self.image, origin=self.where)


def _key(name: str) -> tuple[str, str]:
    """The key of a member's name, up to the first dot behind the folders, and its suffix."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, "." + extension.lower()


def _members(path: Path) -> Iterator[_Member]:
    """The members of a tar in order, of the content only what posts are made of."""
    read = 0
    try:
        with path.open("rb") as raw:
            file: Any = _Forward(raw)
            # Mode "r:" takes no compressed file: what is small on the disk is then small in memory.
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while info := tar.next():
                    vars(tar).update(members=[], pax_headers={})  # else it keeps all it has seen
                    read += 1
                    yield _member(tar, info, file)
                    file.allowance = _HEADER_LIMIT
                file.check_end(tar.offset)
    except FileNotFoundError:
        raise InputError(path, "nothing", "a .tar file") from None
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = shown(str(error))
        found = f"no readable tar after member {read} ({reason})"
        raise InputError(path, found, "an uncompressed tar file") from error


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo, file: _Forward) -> _Member:
    suffix = _key(info.name)[1]
    if info.isdir():
        return _Member(info.name, None, "")
    windows = PureWindowsPath(info.name)  # splits at both slashes and knows drives
    if windows.anchor or ".." in windows.parts or "\0" in info.name or not windows.parts:
        return _Member(info.name, None, "which leads out of the archive")
    if not info.isreg() or info.issparse():
        kind = "a link" if info.issym() or info.islnk() else "no plain file"
        return _Member(info.name, None, kind)
    if suffix not in IMAGE_SUFFIXES + _TEXTS:
        return _Member(info.name, None, "")
    # An image that is too large is read one byte too far, so that decoding calls it so.
    limit = BYTE_LIMIT + 1 if suffix in IMAGE_SUFFIXES else LINE_LIMIT
    if suffix in _TEXTS and info.size > limit:
        return _Member(info.name, None, f"of {info.size:,} bytes, more than {limit:,}")
    file.allowance = limit + _HEADER_LIMIT  # the reader looks a little ahead
    reader = tar.extractfile(info)
    content = reader.read(limit) if reader else b""
    if len(content) < min(info.size, limit):
        raise tarfile.ReadError("unexpected end of data")
    return _Member(info.name, content, "")


class _Forward:
    """A file that is read forward only, and no further than is allowed.

    A header can ask for a piece of any size, and for a place in front of itself, where reading
    would never end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.allowance = _HEADER_LIMIT

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowance:
            raise tarfile.ReadError("a header that is too long")
        self.allowance -= size
        return self._file.read(size)

    def seek(self, position: int) -> None:
        if position < self._file.tell():
            raise tarfile.ReadError("a header that points back")
        self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def check_end(self, position: int) -> None:
        """See that a tar ends where the library says so.

        It takes whatever it cannot read for the end; the true one is a block of zeros.
        """
        self._file.seek(position)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")
