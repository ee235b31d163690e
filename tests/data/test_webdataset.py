"""WebDataset shards: what they hold, and what a hostile one cannot do."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpbert.data.images import BYTE_LIMIT, load_image
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


def test_posts_are_what_the_members_of_a_key_hold(tmp_path: Path) -> None:
    row = {"text": "in Rome", "caption": "a cat", "relation": 1, "tags": 5, "image": "../x.jpg"}
    members = [
        ("a/000.jpg", b"jpeg"),
        ("a/000.txt", "Ada Lovelace 😀\n".encode()),
        ("a/000.cls", b"3"),
        ("001.json", json.dumps(row).encode()),
        ("001.meta.png", b"png"),  # the key ends at the first dot
        ("002.JPEG", b"upper"),
        ("002.json", json.dumps({"id": 7, "tokens": ["x"]}).encode()),
        ("003.pkl", b"never read"),
        ("002.x.txt", b"another suffix"),
    ]
    path = tar_of(tmp_path / "x.tar", *members)
    posts, faults = read(path)
    assert not faults
    assert [(p.id, p.text, p.image, p.caption, p.tags, p.relation, p.origin) for p in posts] == [
        ("a/000", "Ada Lovelace 😀", b"jpeg", None, None, None, f"{path}:a/000"),
        ("001", "in Rome", None, "a cat", None, None, f"{path}:001"),
        ("7", "x", b"upper", None, None, None, f"{path}:002"),
    ]


NAME_SIGNS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="./\\:")


@given(
    names=st.lists(st.text(NAME_SIGNS, min_size=1, max_size=150), unique=True, max_size=6),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
@settings(deadline=None)
def test_any_name_and_every_kind_of_tar(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], kind: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    tar_of(path, *((f"{name}.txt", name.encode()) for name in names), format=kind)
    posts, faults = read(path)
    assert not faults
    assert [(post.id, post.text) for post in posts] == [(name, name) for name in names]


LINK, HARD, PIPE, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
X: Member = ("a.txt", b"x")


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        *([[(f"{folder}a.txt", b"x")], "leads out"] for folder in ("../", "b/../../", "/etc/")),
        *([[(f"{folder}a.txt", b"x")], "leads out"] for folder in ("C:\\", "..\\")),
        ([("a.jpg", b"", LINK, "/etc/passwd"), X], "a link"),
        ([X, ("a.jpg", b"", HARD, "a.txt")], "a link"),
        ([("a.jpg", b"", DEVICE, "")], "no plain file"),
        ([("a.txt", b"", PIPE, "")], "no plain file"),
        ([("a.txt", b"\xff")], "UTF-8"),
        ([("a.json", b"{")], "no JSON"),
        ([("a.json", b"[1]")], "JSON object"),
        ([("a.json", b'{"tokens": 5}')], "tokens 5"),
        ([("a.jpg", b"jpeg")], "text nor tokens"),
        ([X, ("a.jpg", b"1"), ("a.png", b"2")], "image twice"),
        ([X, ("a.txt", b"y")], ".txt twice"),
    ],
)
def test_a_bad_sample_is_told_by_its_key_and_harms_no_other(
    tmp_path: Path, bad: list[Member], found: str
) -> None:
    path = tar_of(tmp_path / "x.tar", ("0.txt", b"before"), *bad, ("z.txt", b"after"))
    posts, faults = read(path)
    assert [post.text for post in posts] == ["before", "after"]
    assert len(faults) == 1
    assert found in str(faults[0])
    assert str(faults[0]).startswith(f"{path}:")
    with pytest.raises(InputError, match=r"x\.tar:"):
        list(read_tar(path, SPLITTERS["joined"]))


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    large = bytes(BYTE_LIMIT + 5000)
    members = [X, ("a.png", large), ("b.txt", b"y" * (LINE_LIMIT + 1)), ("c.txt", b"z")]
    path = tar_of(tmp_path / "x.tar", *members, ("c.npy", large))
    posts, faults = read(path)
    assert [post.id for post in posts] == ["a", "c"]
    assert posts[0].image == bytes(BYTE_LIMIT + 1)
    assert load_image(posts[0].image).status == "unreadable"
    assert [fault.where for fault in faults] == [f"{path}:b"]


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
        *((lambda content, end=end: content[:end], "") for end in (0, 100, 700)),
        (lambda content: content[: 2 * 512], ""),  # after the first member
        (lambda content: content[: 3 * 512], "a"),  # after the first member of a second key
        (lambda content: content[: 4 * 512], "a"),  # after the header of its second
        (lambda content: content[: 5 * 512], "a"),  # after the last member
        (lambda content: content[:1024] + b"\xff" * 512 + content[1536:], ""),
        (lambda content: b"\x1f\x8b" + content, ""),
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
