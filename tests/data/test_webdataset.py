"""WebDataset shards: what they hold, and what a hostile one cannot do."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpbert.data.images import BYTE_LIMIT
from rpbert.data.reading import LINE_LIMIT, ReadLog
from rpbert.data.webdataset import read_tar
from rpbert.data.words import SPLITTERS
from rpbert.errors import InputError
from rpbert.types import Post

Member = tuple[Any, ...]


def tar_of(path: Path, *members: Member, **options: Any) -> Path:
    """Members by name and content, or by name, type and target."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content, *special in members:
            info = tarfile.TarInfo(name)
            info.size, (info.type, info.linkname) = len(content), special or (tarfile.REGTYPE, "")
            tar.addfile(info, io.BytesIO(content))
    return path


def read(path: Path) -> tuple[list[Post], list[InputError]]:
    faults: list[InputError] = []
    return list(read_tar(path, SPLITTERS["joined"], ReadLog(fault=faults.append))), faults


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_posts_are_what_the_members_of_a_key_hold(tmp_path: Path, kind: int) -> None:
    row = {"text": "in Rome", "caption": "a cat", "relation": 1, "tags": 5, "image": "../x.jpg"}
    long = 150 * "é"  # longer than the name in a header
    members = [
        ("a/000.jpg", b"jpeg"),
        ("a/000.txt", "Ada Lovelace 😀\n".encode()),
        ("a/000.cls", b"3"),
        ("001.json", json.dumps(row).encode()),
        ("001.meta.png", b"png"),  # the key ends at the first dot
        ("002.JPEG", b"upper"),
        ("002.json", json.dumps({"id": 7, "tokens": ["x"]}).encode()),
        ("003.pkl", b"never read"),
        (f"{long}.txt", b"long"),
    ]
    path = tar_of(tmp_path / "x.tar", *members, format=kind)
    posts, faults = read(path)
    assert not faults
    assert [(p.id, p.text, p.image, p.caption, p.tags, p.relation, p.origin) for p in posts] == [
        ("a/000", "Ada Lovelace 😀", b"jpeg", None, None, None, f"{path}:a/000"),
        ("001", "in Rome", None, "a cat", None, None, f"{path}:001"),
        ("7", "x", b"upper", None, None, None, f"{path}:002"),
        (long, "long", None, None, None, None, f"{path}:{long}"),
    ]


X: Member = ("a.txt", b"x")


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        *([[(f"{folder}a.txt", b"x")], "leads out"] for folder in ("b/../../", "/etc/", "C:\\")),
        ([("a.jpg", b"", tarfile.SYMTYPE, "/etc/passwd"), X], "a link"),
        ([X, ("a.jpg", b"", tarfile.LNKTYPE, "a.txt")], "a link"),
        ([("a.txt", b"", tarfile.FIFOTYPE, "")], "no plain file"),
        ([("a.txt", b"\xff")], "UTF-8"),
        ([("a.json", b"{")], "no JSON"),
        ([("a.jpg", b"jpeg")], "text nor tokens"),
        ([X, ("a.jpg", b"1"), ("a.png", b"2")], "image twice"),
        ([X, ("a.txt", b"y" * (LINE_LIMIT + 1))], "bytes, more than"),
    ],
)
def test_a_bad_sample_is_told_by_its_key_and_harms_no_other(
    tmp_path: Path, bad: list[Member], found: str
) -> None:
    path = tar_of(tmp_path / "x.tar", ("0.txt", b"before"), *bad, ("z.txt", b"after"))
    posts, faults = read(path)
    assert [post.text for post in posts] == ["before", "after"]
    (fault,) = faults
    assert found in str(fault)
    assert str(fault).startswith(f"{path}:")
    with pytest.raises(InputError, match=r"x\.tar:"):
        list(read_tar(path, SPLITTERS["joined"]))


def test_of_an_image_that_is_too_large_one_byte_too_many_is_read(tmp_path: Path) -> None:
    large = bytes(BYTE_LIMIT + 5000)
    path = tar_of(tmp_path / "x.tar", X, ("a.png", large), ("c.npy", large), ("c.txt", b"z"))
    posts, faults = read(path)
    assert [post.image for post in posts] == [bytes(BYTE_LIMIT + 1), None]
    assert not faults


def header(kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


# A list of extended values that claims 2 GB in front of everything.
HUGE_HEADER = header(tarfile.XHDTYPE, 2**31)
# Each announces a longer name for the next, which the library reads by calling itself.
HEADERS_WITHOUT_END = header(tarfile.GNUTYPE_LONGNAME) * 1500


def pointing_back(content: bytes) -> bytes:
    """A member of negative size, after which reading would begin again."""
    head = bytearray(tarfile.TarInfo("a.bin").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 8 + (-1024).to_bytes(4, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        *((lambda content, end=end: content[:end], "") for end in (0, 700)),
        (lambda content: content[: 2 * 512], ""),  # after the first member
        (lambda content: content[: 3 * 512], "a"),  # after the first member of a second key
        (lambda content: content[: 5 * 512], "a"),  # after the last member
        (lambda content: content[:1024] + b"\xff" * 512 + content[1536:], ""),
        (lambda content: HUGE_HEADER + content, ""),
        (lambda content: HEADERS_WITHOUT_END + content, ""),
        (pointing_back, ""),
    ],
)
def test_a_damaged_tar_is_told(
    tmp_path: Path, damage: Callable[[bytes], bytes], whole: str
) -> None:
    """Posts in front of the damage are read, if sure to be whole; it is not taken for the end."""
    path = tar_of(tmp_path / "x.tar", ("a.txt", b"a" * 400), ("b.png", b""), ("b.txt", b"b" * 400))
    path.write_bytes(damage(path.read_bytes()))
    posts: list[Post] = []
    faults: list[InputError] = []
    with pytest.raises(InputError, match=r"x\.tar: found no readable tar"):
        posts.extend(read_tar(path, SPLITTERS["joined"], ReadLog(fault=faults.append)))
    assert "".join(post.id for post in posts) == whole
    assert faults == []  # it is no fault of a row that a lenient reading leaves out
    with pytest.raises(InputError, match="found nothing"):
        read(tmp_path / "no.tar")


def test_archives_that_were_joined_are_read_to_the_last(tmp_path: Path) -> None:
    """As by ``cat a.tar b.tar``, and damage of a later one is told."""
    one, two, three = (
        tar_of(tmp_path / f"{key}.tar", (f"{key}.txt", key.encode()), ("x.txt", b"x")).read_bytes()
        for key in "abc"
    )
    path = tmp_path / "joined.tar"
    path.write_bytes(one + two[: two.rindex(b"x") // 512 * 512 + 1024] + three)
    posts, faults = read(path)
    assert [post.text for post in posts] == ["a", "x", "b", "x", "c", "x"]
    assert not faults
    for tail in (b"no archive" * 100, b"\0" * 512 + two[:700]):
        path.write_bytes(one + tail)
        with pytest.raises(InputError, match=r"joined\.tar: found no readable tar after member"):
            read(path)
