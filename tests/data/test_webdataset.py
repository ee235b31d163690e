"""WebDataset shards: what they hold, and what a hostile one cannot do."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
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

Member = tuple[str, bytes]


def tar_of(path: Path, members: Iterable[Member | tarfile.TarInfo], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def read(path: Path) -> tuple[list[Post], list[InputError]]:
    faults: list[InputError] = []
    return list(read_tar(path, SPLITTERS["joined"], ReadLog(fault=faults.append))), faults


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


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
    path = tar_of(tmp_path / "x.tar", members)
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
    tar_of(path, [(f"{name}.txt", name.encode()) for name in names], format=kind)
    posts, faults = read(path)
    assert not faults
    assert [(post.id, post.text) for post in posts] == [(name, name) for name in names]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        *(
            ([(f"{folder}a.txt", b"x")], "leads out")
            for folder in ("../", "b/../../", "/etc/", "C:\\", "..\\")
        ),
        ([special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), ("a.txt", b"x")], "a link"),
        ([("a.txt", b"x"), special("a.jpg", tarfile.LNKTYPE, "a.txt")], "a link"),
        ([special("a.jpg", tarfile.CHRTYPE)], "no plain file"),
        ([special("a.txt", tarfile.FIFOTYPE)], "no plain file"),
        ([("a.txt", b"\xff")], "UTF-8"),
        ([("a.json", b"{")], "no JSON"),
        ([("a.json", b"[1]")], "one JSON object"),
        ([("a.json", b'{"tokens": 5}')], "found tokens 5"),
        ([("a.jpg", b"jpeg")], "neither text nor tokens"),
        ([("a.txt", b"x"), ("a.jpg", b"1"), ("a.png", b"2")], "image twice"),
        ([("a.txt", b"x"), ("a.txt", b"y")], ".txt twice"),
    ],
)
def test_a_bad_sample_is_told_by_its_key_and_harms_no_other(
    tmp_path: Path, bad: list[Member | tarfile.TarInfo], words: str
) -> None:
    around = [("0.txt", b"before"), ("z.txt", b"after")]
    path = tar_of(tmp_path / "x.tar", [around[0], *bad, around[1]])
    posts, faults = read(path)
    assert [post.text for post in posts] == ["before", "after"]
    assert len(faults) == 1
    assert words in str(faults[0])
    assert str(faults[0]).startswith(f"{path}:")
    with pytest.raises(InputError, match=r"x\.tar:"):
        list(read_tar(path, SPLITTERS["joined"]))


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    members = [
        ("a.txt", b"x"), ("a.png", bytes(BYTE_LIMIT + 5000)),
        ("b.txt", b"y" * (LINE_LIMIT + 1)),
        ("c.txt", b"z"), ("c.npy", bytes(BYTE_LIMIT + 5000)),
    ]  # fmt: skip
    posts, faults = read(tar_of(tmp_path / "x.tar", members))
    assert [post.id for post in posts] == ["a", "c"]
    assert posts[0].image == bytes(BYTE_LIMIT + 1)
    assert load_image(posts[0].image).status == "unreadable"
    assert [fault.where for fault in faults] == [f"{tmp_path / 'x.tar'}:b"]


def huge_header(content: bytes) -> bytes:
    """A list of extended values that claims 2 GB in front of everything."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**31
    return info.tobuf(tarfile.USTAR_FORMAT) + content


def headers_without_end() -> bytes:
    """Each announces a longer name for the next, which the library reads by calling itself."""
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_LONGNAME
    return info.tobuf(tarfile.GNU_FORMAT) * 1500


def pointing_back(content: bytes) -> bytes:
    """A member of negative size, after which reading would begin again."""
    header = bytearray(tarfile.TarInfo("a.bin").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 8 + (-1024).to_bytes(4, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (lambda content: b"", ""),
        (lambda content: content[:100], ""),
        (lambda content: content[:700], ""),  # inside the first member
        (lambda content: content[: 2 * 512], ""),  # after the first member
        (lambda content: content[: 3 * 512], "a"),  # after the first member of a second key
        (lambda content: content[: 4 * 512], "a"),  # after the header of its second
        (lambda content: content[: 5 * 512], "a"),  # after the last member
        (lambda content: content[:1024] + b"\xff" * 512 + content[1536:], ""),
        (lambda content: b"\x1f\x8b" + content, ""),
        (huge_header, ""),
        (pointing_back, ""),
        (lambda content: headers_without_end() + content, ""),
    ],
)
def test_a_damaged_tar_is_told(
    tmp_path: Path, damage: Callable[[bytes], bytes], whole: str
) -> None:
    """Posts in front of the damage are read, if sure to be whole; it is not taken for the end."""
    members = [("a.txt", b"a" * 400), ("b.png", b""), ("b.txt", b"b" * 400)]
    path = tar_of(tmp_path / "x.tar", members)
    path.write_bytes(damage(path.read_bytes()))
    posts: list[Post] = []
    faults: list[InputError] = []
    with pytest.raises(InputError, match=r"x\.tar: found no readable tar"):
        posts.extend(read_tar(path, SPLITTERS["joined"], ReadLog(fault=faults.append)))
    assert "".join(post.id for post in posts) == whole
    assert faults == []  # it is no fault of a row that a lenient reading leaves out
    with pytest.raises(InputError, match="found nothing"):
        read(tmp_path / "no.tar")
