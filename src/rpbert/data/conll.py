"""Posts from the text files of a data folder: ``IMGID:`` lines and ``word<TAB>tag`` lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rpbert.data import Post
from rpbert.data.labels import is_tag, normalise
from rpbert.data.raw import ImageFolder, Quirk, lines_of, note, note_words, shown
from rpbert.errors import InputError

_HEADER = "IMGID:"
NO_BLANK_END = "no blank line at the end"


@dataclass(slots=True)
class _Open:
    """A post while its lines are read."""

    id: str
    line: int
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_conll(
    path: Path, images: ImageFolder | None = None, quirks: list[Quirk] | None = None
) -> Iterator[Post]:
    """Posts of one text file, in its order.

    Args:
        path: the file.
        images: where its images are; without it posts have none.
        quirks: collects what is odd about the file, as it is read.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or a line is none of the three kinds.
    """
    post: _Open | None = None
    number, found = 0, False
    for number, line in lines_of(path, quirks):
        if "\t" in line:
            _add_word(post, line, path, number, quirks)
        elif line.startswith(_HEADER):
            if post is not None:
                note(quirks, path, number, "no blank line between posts", "a new post all the same")
                yield _close(post, path, images, quirks)
            post, found = _Open(_id_of(line, f"{path}:{number}"), number), True
        elif line.strip(" ") == "":
            if line:
                note(quirks, path, number, "spaces on a blank line", "ends the post")
            if post is not None:
                yield _close(post, path, images, quirks)
            post = None
        else:
            raise InputError(
                f"{path}:{number}",
                shown(line),
                "an IMGID:<image id> line, a word<TAB>tag line or a blank line",
                "set a tab between word and tag",
            )
    if post is not None:
        note(quirks, path, number, NO_BLANK_END, "the last post ends with the file")
        yield _close(post, path, images, quirks)
    if not found:
        raise InputError(path, "no post", "posts, each begun by an IMGID:<image id> line")


def _add_word(
    post: _Open | None, line: str, path: Path, number: int, quirks: list[Quirk] | None
) -> None:
    where = f"{path}:{number}"
    # The tag is behind the last tab: a word may hold one, a tag never does.
    word, _, tag = line.rpartition("\t")
    if post is None:
        raise InputError(where, f"the word {shown(word)} outside any post", "an IMGID: line first")
    if not is_tag(tag):
        raise InputError(where, f"the tag {shown(tag)}", "O, B-<type> or I-<type> behind the tab")
    one_spelling = normalise(tag)
    if one_spelling != tag:
        note(quirks, path, number, "OTHER for MISC", f"{tag} read as {one_spelling}")
    post.words.append(word)
    post.tags.append(one_spelling)
    post.lines.append(number)


def _id_of(line: str, where: str) -> str:
    id = line.removeprefix(_HEADER).strip()
    if not id:
        raise InputError(where, "IMGID: without an id", "IMGID:<image id>")
    return id


def _close(post: _Open, path: Path, images: ImageFolder | None, quirks: list[Quirk] | None) -> Post:
    origin = f"{path}:{post.line}"
    if not post.words:
        note(quirks, path, post.line, "post without words", f"id {shown(post.id)}; kept")
    note_words(quirks, path, post.lines, post.words, post.tags)
    return Post.from_words(
        post.id,
        tuple(post.words),
        tags=tuple(post.tags),
        image=images.find(post.id, origin) if images else None,
        origin=origin,
    )
