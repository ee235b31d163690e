"""What every reader shares: lines, names, numbers and characters as strangers' files hold them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rpbert.data.labels import lone_inside
from rpbert.errors import Faults, InputError, refuse
from rpbert.storage.writing import stays_below

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
LINE_LIMIT = 16 * 2**20
"""Bytes of a line; a longer one is passed over without being held."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_URL_SCHEME = re.compile(r"https?:?/{0,2}")
_INVISIBLE = re.compile(
    # Controls, soft hyphen, zero-width and directional signs, variation selectors, all spaces.
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)


@dataclass(frozen=True, slots=True)
class Quirk:
    """Something odd in a source that was survived.

    Attributes:
        file: the name of the file.
        line: the line of a text file or the row of a table, from 1.
        kind: what it is, the same words for all of its kind.
        detail: what was found there, and what was made of it.
    """

    file: str
    line: int
    kind: str
    detail: str


def note(quirks: list[Quirk] | None, path: Path, line: int, kind: str, detail: str) -> None:
    """Add a quirk to `quirks` where somebody collects them."""
    if quirks is not None:
        quirks.append(Quirk(path.name, line, kind, detail))


def refuse_misspelt(
    name: str, names: Collection[str], known: Collection[str], where: object
) -> None:
    """Take an unknown name for a slip where it is next to a known one that is not there.

    Raises:
        InputError: it is; reading on would leave out what it holds without a word.
    """
    missing = [key for key in known if key not in names]
    near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.8)
    if near:
        hint = "rename it; a name unlike any that is read is passed over"
        raise InputError(where, f"the key {shown(name)}", near[0], hint)


def lines_of(
    path: Path, quirks: list[Quirk] | None = None, faults: Faults = refuse
) -> Iterator[tuple[int, str]]:
    """Each line of a UTF-8 file with its number, without BOM and line end.

    Only a line feed ends a line: other separators occur inside tweets.

    Args:
        faults: told of a line that is no UTF-8 or too long.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(path, f"no readable file ({error.strerror})", "a text file") from error
    carriage_return_seen = False
    with file:
        for number, raw in enumerate(_bounded_lines(file), start=1):
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw.removeprefix(b"\xef\xbb\xbf")
                note(quirks, path, 1, "byte order mark", "skipped")
            raw = raw.removesuffix(b"\n")
            if raw.endswith(b"\r"):
                raw = raw.removesuffix(b"\r")
                if not carriage_return_seen:
                    carriage_return_seen = True
                    note(quirks, path, number, "CRLF line ends", "from this line on; read as LF")
            if len(raw) > LINE_LIMIT:
                found = f"a line of more than {LINE_LIMIT:,} bytes"
                faults(InputError(f"{path}:{number}", found, "a line a post"))
                continue
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"the byte 0x{raw[error.start]:02x} at column {error.start + 1}"
                expected, hint = "UTF-8 text", "save the file as UTF-8"
                faults(InputError(f"{path}:{number}", found, expected, hint))
                continue
            yield number, line


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, its first `LINE_LIMIT` bytes and one more."""
    while line := file.readline(LINE_LIMIT + 2):  # room for a line feed, and for one too many
        rest = line
        while len(rest) == LINE_LIMIT + 2 and not rest.endswith(b"\n"):
            rest = file.readline(LINE_LIMIT + 2)
        yield line


def without_surrogates(text: str, where: tuple[Path, int], quirks: list[Quirk] | None) -> str:
    """`text` with each lone surrogate, which no encoder takes, as U+FFFD; offsets stay."""
    clean, count = _SURROGATE.subn("\ufffd", text)
    if count:
        note(quirks, *where, "lone surrogate", f"{count} replaced by U+FFFD")
    return clean


def relation_of(value: object, where: object) -> float:
    """A relation label: 0, 1, or a probability between.

    Raises:
        InputError: anything else.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0.0 <= number <= 1.0:
        raise InputError(where, f"the relation {shown(value)}", "0, 1 or a probability between")
    return number


def safe_relative(name: str, where: object) -> Path:
    """`name` as a path that stays below the folder it is relative to.

    Raises:
        InputError: it is empty, absolute, climbs with ``..``, or is no path at all.
    """
    if not stays_below(name) or "://" in name:
        raise InputError(where, f"the image {shown(name)}", "a path below the folder of the data")
    return Path(name)


class ImageFolder:
    """The images of a data folder, found by id; listed once, not probed for each post."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
        by_preference = sorted(names, key=lambda name: _preference(name), reverse=True)
        # The preferred suffix comes last, so it is the one that stays.
        self._names = {Path(name).stem: name for name in by_preference if _is_image(name)}

    def find(self, id: str, where: object) -> Path:
        """The image named `id`, as ``<id>.jpg`` also where there is none.

        Raises:
            InputError: `id` is no plain file name, so it might lead out of the folder.
        """
        if id in ("", ".", "..") or any(sign in id for sign in "/\\\0"):
            raise InputError(where, f"the image id {shown(id)}", "a file name without folders")
        return self.path / self._names.get(id, id + ".jpg")


def note_words(
    quirks: list[Quirk] | None,
    path: Path,
    lines: Sequence[int],
    words: Sequence[str],
    tags: Sequence[str] | None,
) -> None:
    """Note what is odd about the words of one post; `lines` holds the line of each word."""
    if quirks is None:
        return
    for i, word in enumerate(words):
        if word == "":
            note(quirks, path, lines[i], "empty word", "kept, so that tags stay aligned")
        elif _INVISIBLE.fullmatch(word):
            note(quirks, path, lines[i], "invisible word", ascii(word))
        elif any(sign.isspace() for sign in word):
            note(quirks, path, lines[i], "white space inside a word", ascii(word))
        if _URL_SCHEME.fullmatch(word) and words[i + 1 : i + 2] and words[i + 1][:1] in (":", "/"):
            note(quirks, path, lines[i], "URL cut in two words", ascii(word))
    for i in lone_inside(tags or ()):
        detail = f"{(tags or ())[i]} continues nothing; strict IOB2 counts no entity here"
        note(quirks, path, lines[i], "lone I- tag", detail)


def shown(value: object, limit: int = 60) -> str:
    """`value` for a message: printable and short."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "…"


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _preference(name: str) -> tuple[int, str]:
    suffix = Path(name).suffix.lower()
    rank = IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)
    return rank, name


_TOLD = 3


class LeftOut:
    """Takes the faults of a source (`rpbert.errors.Faults`) and lets the reading go on.

    Attributes:
        count: how many rows, or posts of a text file, were left out or mended.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def __call__(self, fault: InputError) -> None:
        """Take a fault."""
        self.count += 1
        if len(self._first) < _TOLD:
            self._first.append(str(fault))

    def __str__(self) -> str:
        """All in one line: ``2 faulty rows left out or mended: train.txt:17: found …``."""
        rows = "row" if self.count == 1 else "rows"
        more = ["…"] if self.count > len(self._first) else []
        return f"{self.count:,} faulty {rows} left out or mended: {' | '.join(self._first + more)}"
