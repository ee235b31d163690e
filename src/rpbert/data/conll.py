"""Posts from the text files of a data folder: ``IMGID:`` lines and ``word<TAB>tag`` lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from rpbert.data.labels import is_tag, normalise
from rpbert.data.reading import SILENT, ImageFolder, ReadLog, lines_of, note_words, quoted
from rpbert.errors import InputError
from rpbert.types import Post

_HEADER, _TAB = "IMGID:", "\t"
NO_BLANK_END = "no blank line at the end"
_Block: TypeAlias = tuple[list[tuple[int, str]], tuple[int, str, str] | None]
"""The numbered lines of a post, and the quirk of how it ends."""


def read_conll(
    path: Path, images: ImageFolder | None = None, log: ReadLog = SILENT
) -> Iterator[Post]:
    """Posts of one text file, in its order; a fault leaves its post out.

    Where `log.fault` returns, a space between word and tag is read as the tab.

    Args:
        images: where its images are; without it posts have none.

    Raises:
        InputError: the file is missing or holds no post.
    """
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
        word, given = _word_and_tag(line, f"{path}:{number}", log)
        tag = normalise(given)
        if tag != given:
            log.note(path, number, "OTHER for MISC", f"{given} read as {tag}")
        words.append(word)
        tags.append(tag)
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
    if not word or not is_tag(tag):
        raise _no_line(where, line)
    log.fault(_no_line(where, line))
    return word, tag


def _no_line(where: str, line: str) -> InputError:
    expected = "an IMGID:<image id> line, a word<TAB>tag line or a blank line"
    return InputError(where, quoted(line), expected, "set a tab between word and tag")
