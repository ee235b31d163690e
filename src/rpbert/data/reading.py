"""What all readers share: lines, limits, names, and the record of what is odd or faulty."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from rpbert.data.labels import AS_IOB2, TagReading, lone_inside
from rpbert.errors import Faults, InputError, refuse
from rpbert.storage.writing import stays_below

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp")
_NO_IMAGES = (".txt", ".json", ".jsonl", ".tsv", ".csv", ".npy", ".md")
LINE_LIMIT = 16 * 2**20
"""Bytes of a line, or of a text in an archive; a longer line is skipped without being held."""

_URL_SCHEME = re.compile(r"https?:?/{0,2}")
_INVISIBLE = re.compile(
    # Controls, soft hyphen, zero-width and directional signs, variation selectors, all spaces.
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)


@dataclass(frozen=True, slots=True)
class Quirk:
    """Something odd that was read all the same, in a line or row (from 1) of a file by its name."""

    file: str
    line: int
    kind: str
    detail: str


class ReadingNote(UserWarning):
    """How a file was read, where that may not be what its writer means."""


@dataclass(frozen=True)
class ReadLog:
    """How a reader reads tags, and where it reports quirks (None: they are dropped), the faults of
    rows and notes (None: they are warnings)."""

    quirks: list[Quirk] | None = None
    fault: Faults = field(default=refuse)
    notes: list[str] | None = None
    tags: TagReading = AS_IOB2

    def tell(self, note: str) -> None:
        """Say how a file is read, in one line."""
        if self.notes is None:
            warnings.warn(note, ReadingNote, stacklevel=2)
        elif note not in self.notes:
            self.notes.append(note)

    def note(self, path: Path, line: int | str, kind: str, detail: str) -> None:
        """Add a quirk."""
        if self.quirks is not None:
            self.quirks.append(Quirk(path.name, int(line), kind, detail))


Values: TypeAlias = Mapping[str, Any]
"""The values of a row by their keys."""
Row: TypeAlias = tuple[int | str | list[int | str], Callable[[], Values | None]]
"""A line or key in a file, or a line and those of each word, and what returns the values there, or
None where there is no post."""

SILENT = ReadLog()  # quirks are not collected, and the first fault is raised


class LeftOut:
    """Counts the faults of a source (`rpbert.errors.Faults`) and lets the reading continue."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def __call__(self, fault: InputError) -> None:
        """Take a fault."""
        self.count += 1
        self._first = [*self._first, str(fault)][:3]

    def __str__(self) -> str:
        """All in one line: ``2 faulty rows left out or mended: train.txt:17: found …``."""
        rows = "row" if self.count == 1 else "rows"
        more = ["…"] if self.count > len(self._first) else []
        return f"{self.count:,} faulty {rows} left out or mended: {' | '.join(self._first + more)}"


def lines_of(path: Path, log: ReadLog = SILENT) -> Iterator[tuple[int, str]]:
    """Each line of a UTF-8 file with its number, without BOM and line end. Only a line feed ends a
    line: other separators occur inside tweets."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a text file") from error
    crlf = False
    with file:
        for number, raw in enumerate(_bounded_lines(file), start=1):
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw.removeprefix(b"\xef\xbb\xbf")
                log.note(path, 1, "byte order mark", "skipped")
            raw = raw.removesuffix(b"\n")
            if raw.endswith(b"\r") and not crlf:
                log.note(path, number, "CRLF line ends", "from this line on; read as LF")
                crlf = True
            raw = raw.removesuffix(b"\r")
            if len(raw) > LINE_LIMIT:
                found = f"a line of more than {LINE_LIMIT:,} bytes"
                log.fault(InputError(f"{path}:{number}", found, "a line a post"))
                continue
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"the byte 0x{raw[error.start]:02x} at column {error.start + 1}"
                hint = "save the file as UTF-8"
                log.fault(InputError(f"{path}:{number}", found, "UTF-8 text", hint))
            else:
                yield number, line


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, its first `LINE_LIMIT` bytes and one more."""
    while line := file.readline(LINE_LIMIT + 2):  # room for a line feed, and for one too many
        rest = line
        while len(rest) == LINE_LIMIT + 2 and not rest.endswith(b"\n"):
            rest = file.readline(LINE_LIMIT + 2)
        yield line


def quoted(value: object, limit: int = 60) -> str:
    """`value` for a message: printable and short."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "…"


def misspelt(name: str, absent: Collection[str]) -> str | None:
    """The one of `absent` names that a name resembles, lest its values are lost."""
    near = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.8)
    return near[0] if near else None


def relation_of(value: object, where: object) -> float:
    """A relation label: 0, 1, or a probability between."""
    try:
        number = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0.0 <= number <= 1.0:
        raise InputError(where, f"the relation {quoted(value)}", "0, 1 or a probability between")
    return number


def image_below(folder: Path, name: str, where: object) -> Path:
    """The image `name` of a folder, if it stays below that and no link leads out of it."""
    path = folder / name
    stays = stays_below(name) and "://" not in name
    if not stays or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise InputError(where, f"the image {quoted(name)}", "a file below the folder of the data")
    return path


class ImageFolder:
    """The images of a data folder, found by id; listed once, not probed for each post."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of several suffixes the first of `IMAGE_SUFFIXES` wins; any other may be an image, too.
        rank = {suffix: place for place, suffix in enumerate(IMAGE_SUFFIXES)}
        found = sorted(
            (rank.get(file.suffix.lower(), len(rank)), file.name, file.stem)
            for file in path.iterdir()
            if file.suffix and file.suffix.lower() not in _NO_IMAGES
        )
        self._names = {stem: name for _, name, stem in reversed(found)}
        self._names |= {name: name for _, name, _ in found}

    def find(self, id: str, where: object) -> Path:
        """The image named `id`, with or without a suffix; ``<id>.jpg`` where there is none."""
        if id in ("", ".", "..") or any(sign in id for sign in "/\\\0"):
            raise InputError(where, f"the image id {quoted(id)}", "a file name without folders")
        stem, dot, suffix = id.rpartition(".")
        has_suffix = dot + suffix.lower() in IMAGE_SUFFIXES
        absent = id if has_suffix else id + ".jpg"
        other = self._names.get(stem, absent) if has_suffix else absent
        return image_below(self.path, self._names.get(id, other), where)


def note_words(
    log: ReadLog, path: Path, lines: Sequence[int | str], words: Sequence[str], tags: Sequence[str]
) -> None:
    """Note what is odd about the words of one post; `lines` holds the line of each word."""
    if log.quirks is None:
        return
    for line, word, following in zip(lines, words, (*words, "")[1:], strict=True):
        if word == "":
            log.note(path, line, "empty word", "kept, so that tags stay aligned")
        elif _INVISIBLE.fullmatch(word):
            log.note(path, line, "invisible word", ascii(word))
        elif any(sign.isspace() for sign in word):
            log.note(path, line, "white space inside a word", ascii(word))
        if _URL_SCHEME.fullmatch(word) and following.startswith((":", "/")):
            log.note(path, line, "URL cut in two words", ascii(word))
    for i in lone_inside(tags):
        detail = f"{tags[i]} continues nothing; strict IOB2 counts no entity here"
        log.note(path, lines[i], "lone I- tag", detail)
