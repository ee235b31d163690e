"""Rows of CoNLL files: a line a word in columns parted by tabs or by blanks, the tag in one.
Of a data folder's files ``IMGID:<image id>`` begins each post; in others a blank line parts them,
and posts have no image. The layout of a file is found by reading it once before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from rpbert.data.labels import OUTSIDE, is_tag
from rpbert.data.reading import ReadLog, Row, Values, lines_of, quoted
from rpbert.errors import InputError

SUFFIXES = (".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", ".tsv")
NO_BLANK_END = "no blank line at the end"
_HEADER, _TAB, _DOCUMENT = "IMGID:", "\t", "-DOCSTART-"
_COMMENT = re.compile(r"#\s+(?:(?:sent_)?id\b[\s:=]*(?P<id>\S+))?")
_Lines: TypeAlias = list[tuple[int, str]]
_Block: TypeAlias = tuple[str, _Lines, tuple[int, str, str] | None]
"""The id that a comment gives, the numbered lines of a post, and the quirk of how it ends."""


@dataclass(frozen=True)
class Layout:
    """Where the lines of a file have what."""

    tab: bool = True  # a tab parts columns, else blanks
    width: int = 2  # columns of a line
    word: int = 0
    tag: int = 1
    headed: bool = True  # a post begins with ``IMGID:``
    gold: tuple[int, ...] = ()  # further columns that hold tags

    def cells(self, line: str) -> list[str]:
        """The columns of a line. In a file of two the word may hold tabs, the tag never does."""
        parts = _parts(line, self.tab)
        if not self.tab or self.width > 2 or len(parts) < 2:
            return parts
        return [_TAB.join(parts[:-1]), parts[-1]]

    def is_comment(self, line: str) -> bool:
        """Whether a line is a comment; ``#`` is also a word of posts."""
        found = _COMMENT.match(line)
        if found is None or is_tag(_parts(line, tab=False)[-1]):
            return False
        return found["id"] is not None or len(_parts(line, self.tab)) != self.width

    def __str__(self) -> str:
        """The columns in words, those of two as nothing."""
        if self.width == 2:
            return ""
        text = f"{self.width} columns: the word from column {self.word + 1}, the tag from column "
        text += f"{self.tag + 1}, the others are not read"
        others = " and ".join(str(column + 1) for column in self.gold)
        return text + (f"; tags are also in column {others}: data.tag_column" if others else "")


def _parts(line: str, tab: bool) -> list[str]:
    return line.split(_TAB) if tab else re.split("[ \t]+", line.strip(" \t"))


def layout_of(path: Path, tag_column: int = -1) -> Layout:
    """The layout of a file as most of its lines have it; `tag_column` counts from 1, or from -1
    back. Raises InputError: there is no such column."""
    widths = {True: Counter[int](), False: Counter[int]()}
    headed, log = False, ReadLog(fault=lambda _: None)
    for _, line in lines_of(path, log):
        headed = headed or _is_header(line)
        if line.strip() and not _is_header(line) and not line.startswith(_DOCUMENT):
            tab = _TAB in line
            widths[tab][len(_parts(line, tab))] += 1
    tab = widths[True].total() >= widths[False].total()
    width = max(2, max(widths[tab], key=lambda n: (widths[tab][n], -n), default=2))
    if width == 2:
        return Layout(tab, headed=headed)
    tag = tag_column - 1 if tag_column > 0 else width + tag_column
    if not 0 <= tag < width:
        expected = f"one of its {width} columns, from 1, or from -1 back"
        raise InputError("data.tag_column", f"{tag_column} for {path}", expected)
    return _with_columns(Layout(tab, width, 0, tag, headed), path, log)


def _with_columns(layout: Layout, path: Path, log: ReadLog) -> Layout:
    """The layout with its word behind a column that counts words, and the columns of tags."""
    counts, every = True, range(layout.width)
    tagged, named = [True] * layout.width, [False] * layout.width
    for _, lines, _ in _blocks(path, layout, log):
        rows = [layout.cells(line) for _, line in lines[layout.headed :]]
        numbers = [row[0] for row in rows]
        first = int(numbers[:1] == ["1"])
        counts &= numbers == [str(first + place) for place in range(len(rows))]
        for column in every:
            cells = [row[column] for row in rows if len(row) == layout.width]
            tagged[column] &= all(is_tag(cell, "BIEMSLUW") for cell in cells)
            named[column] |= any(cell != OUTSIDE for cell in cells)
    word = 1 if counts and layout.tag != 1 else 0
    gold = (c for c in every if c not in (word, layout.tag) and tagged[c] and named[c])
    return replace(layout, word=word, gold=tuple(gold))


def conll_rows(path: Path, layout: Layout, log: ReadLog) -> Iterator[Row]:
    """A row for each post of a text file, in its order. Where `log.fault` returns, a space between
    word and tag is read as the tab."""
    for id, lines, end in _blocks(path, layout, log):
        if end:
            log.note(path, *end)
        if lines:
            numbers: list[int | str] = [number for number, _ in lines]
            values = partial(_values, id, lines, path, layout, log)
            yield [numbers[0], *numbers[layout.headed :]], values


def _blocks(path: Path, layout: Layout, log: ReadLog) -> Iterator[_Block]:
    """The lines of each post; none of a post of which a line cannot be read."""
    lines: _Lines = []
    end: tuple[int, str, str] | None
    spoiled, number, id = False, 0, ""

    def spoil(fault: InputError) -> None:
        nonlocal spoiled
        log.fault(fault)
        spoiled = True

    for number, line in lines_of(path, replace(log, fault=spoil)):
        header, blank, end = layout.headed and _is_header(line), not line.strip(" \t"), None
        if header and lines:
            end = number, "no blank line between posts", "a new post all the same"
        elif blank and line:
            end = number, "spaces on a blank line", "ends the post"
        elif line.startswith(_DOCUMENT):
            blank, end = True, (number, f"{_DOCUMENT} line", "begins a document; not read")
        if header or blank:
            yield id, ([] if spoiled else lines), end
            lines, spoiled, id = [], False, ""
        elif layout.is_comment(line):
            log.note(path, number, "comment", line)
            id = (_COMMENT.match(line) or {"id": ""})["id"] or id
            continue
        if not blank:
            lines.append((number, line))
    if lines:
        end = number, NO_BLANK_END, "the last post ends with the file"
        yield id, ([] if spoiled else lines), end


def _is_header(line: str) -> bool:
    return line.startswith(_HEADER) and _TAB not in line


def _values(id: str, lines: _Lines, path: Path, layout: Layout, log: ReadLog) -> Values:
    first, header = lines[0]
    where = f"{path}:{first}"
    if not layout.headed:
        id = id or f"{path.stem}:{first}"
    elif not _is_header(header):
        found = f"the word {quoted(layout.cells(header)[0])} outside any post"
        raise InputError(where, found, "an IMGID: line first")
    else:
        id = header.removeprefix(_HEADER).strip()
    if not id:
        raise InputError(where, "IMGID: without an id", "IMGID:<image id>")
    pairs = [
        _word_and_tag(line, f"{path}:{number}", layout, log)
        for number, line in lines[layout.headed :]
    ]
    return {"id": id, "tokens": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]}


def _word_and_tag(line: str, where: str, layout: Layout, log: ReadLog) -> tuple[str, str]:
    cells = layout.cells(line)
    if len(cells) == 1 and layout.tab and layout.width == 2:
        word, _, tag = line.rpartition(" ")
        fault = _no_line(where, line)
        if not word or not log.tags.is_tag(tag):
            raise fault
        log.fault(fault)
        return word, tag
    if len(cells) != layout.width:
        raise InputError(where, quoted(line), f"{layout.width} columns, as other lines have")
    word, tag = cells[layout.word], cells[layout.tag]
    if any(is_tag(part) for part in word.split(_TAB)[1:]):
        raise InputError(where, f"a tag in the word {quoted(word)}", "one tag a word")
    return word, tag


def _no_line(where: str, line: str) -> InputError:
    expected = "an IMGID:<image id> line, a word<TAB>tag line or a blank line"
    return InputError(where, quoted(line), expected, "set a tab between word and tag")
