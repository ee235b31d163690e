"""Posts from the text files of a data folder: ``IMGID:`` lines and ``word<TAB>tag`` lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rpbert.data.labels import is_tag, normalise
from rpbert.data.reading import ImageFolder, Quirk, lines_of, note, note_words, shown
from rpbert.errors import Faults, InputError, refuse
from rpbert.types import Post

_HEADER = "IMGID:"
_TAB = "\t"
NO_BLANK_END = "no blank line at the end"


@dataclass(slots=True)
class _Open:
    """A post while its lines are read; a faulty one is left out."""

    id: str
    line: int
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faulty: bool = False


def read_conll(
    path: Path,
    images: ImageFolder | None = None,
    quirks: list[Quirk] | None = None,
    faults: Faults = refuse,
) -> Iterator[Post]:
    """Posts of one text file, in its order.

    Args:
        path: the file.
        images: where its images are; without it posts have none.
        quirks: collects what is odd about the file, as it is read.
        faults: told of the first line of a post that is none of the three kinds; if it returns,
            a space between word and tag is read as the tab, and any other such post left out.

    Raises:
        InputError: the file is missing or holds no post.
    """
    post: _Open | None = None
    number, before, found = 0, 0, False
    for number, line in lines_of(path, quirks, faults):
        if post is not None and number > before + 1:  # a line that no text could be read from
            post.faulty = True
        before = number
        if "\t" not in line and line.startswith(_HEADER):
            if post is not None and not post.faulty:
                note(quirks, path, number, "no blank line between posts", "a new post all the same")
            yield from _close(post, path, images, quirks, faults)
            post, found = _Open(line.removeprefix(_HEADER).strip(), number), True
            if not post.id:
                fault = InputError(f"{path}:{number}", "IMGID: without an id", "IMGID:<image id>")
                _leave_out(post, fault, faults)
        elif line.strip(" ") == "":
            if line:
                note(quirks, path, number, "spaces on a blank line", "ends the post")
            yield from _close(post, path, images, quirks, faults)
            post = None
        else:
            post = post or _outside(line, path, number, faults)
            _add_word(post, line, path, number, quirks, faults)
    if post is not None:
        note(quirks, path, number, NO_BLANK_END, "the last post ends with the file")
    yield from _close(post, path, images, quirks, faults)
    if not found:
        raise InputError(path, "no post", "posts, each begun by an IMGID:<image id> line")


def _outside(line: str, path: Path, number: int, faults: Faults) -> _Open:
    """A post to be left out, of words without a header."""
    post, where = _Open("", number), f"{path}:{number}"
    if "\t" not in line:
        _leave_out(post, _no_line(where, line), faults)
    else:
        found = f"the word {shown(line.rpartition(_TAB)[0])} outside any post"
        _leave_out(post, InputError(where, found, "an IMGID: line first"), faults)
    return post


def _leave_out(post: _Open, fault: InputError, faults: Faults) -> None:
    """Tell the first fault of a post, which is then left out unless that stops the reading."""
    if not post.faulty:
        faults(fault)
    post.faulty = True


def _no_line(where: str, line: str) -> InputError:
    return InputError(
        where,
        shown(line),
        "an IMGID:<image id> line, a word<TAB>tag line or a blank line",
        "set a tab between word and tag",
    )


def _add_word(
    post: _Open, line: str, path: Path, number: int, quirks: list[Quirk] | None, faults: Faults
) -> None:
    if post.faulty:
        return
    where = f"{path}:{number}"
    # The tag is behind the last tab: a word may hold one, a tag never does.
    word, tab, tag = line.rpartition(_TAB)
    if not tab:
        word, _, tag = line.rpartition(" ")
        if not word or not is_tag(tag):
            _leave_out(post, _no_line(where, line), faults)
            return
        faults(_no_line(where, line))
    elif not is_tag(tag):
        fault = InputError(where, f"the tag {shown(tag)}", "O, B-<type> or I-<type> behind the tab")
        _leave_out(post, fault, faults)
        return
    one_spelling = normalise(tag)
    if one_spelling != tag:
        note(quirks, path, number, "OTHER for MISC", f"{tag} read as {one_spelling}")
    post.words.append(word)
    post.tags.append(one_spelling)
    post.lines.append(number)


def _close(
    post: _Open | None,
    path: Path,
    images: ImageFolder | None,
    quirks: list[Quirk] | None,
    faults: Faults,
) -> Iterator[Post]:
    """The post that ends, unless there is none or it is left out."""
    if post is None or post.faulty:
        return
    origin = f"{path}:{post.line}"
    try:
        image = images.find(post.id, origin) if images else None
    except InputError as fault:
        _leave_out(post, fault, faults)
        return
    if not post.words:
        note(quirks, path, post.line, "post without words", f"id {shown(post.id)}; kept")
    note_words(quirks, path, post.lines, post.words, post.tags)
    yield Post.from_words(
        post.id,
        tuple(post.words),
        tags=tuple(post.tags),
        image=image,
        origin=origin,
    )
