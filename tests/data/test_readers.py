"""One door to data: what a data folder means, what is survived and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.types import Post, PostImage
from tests.data.files import folder_of, kinds, read

SMALL = "IMGID:a\nAnna\tB-PER\nsleeps\tO\n\nIMGID:b\nRome\tB-LOC\n\n"


def test_a_data_folder(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        {
            "train.txt": SMALL,
            "images/b.png": "",
            "captions.tsv": "a\ta cat\n",
            "relations.tsv": "b\t1\n",
        },
    )
    posts, quirks = read(folder, "train")
    assert quirks == []
    assert posts == [
        Post("a", ("Anna", "sleeps"), "Anna sleeps", ((0, 4), (5, 11)), ("B-PER", "O"),
             (PostImage(folder / "images" / "a.jpg", "a cat"),), f"{folder / 'train.txt'}:1"),
        Post("b", ("Rome",), "Rome", ((0, 4),), ("B-LOC",),
             (PostImage(folder / "images" / "b.png", None, 1.0),), f"{folder / 'train.txt'}:5"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["dev.txt", "valid.txt"])
@pytest.mark.parametrize("images", ["images", "twitter2015_images"])
def test_the_development_split_and_the_image_folder(tmp_path: Path, name: str, images: str) -> None:
    """Both have two spellings; of an image's suffixes JPEG is preferred, in any case."""
    files = {f"{images}/{file}": "" for file in ("a.png", "a.jpg", "a.txt", "b.JPEG")}
    folder = folder_of(tmp_path, {name: SMALL + "IMGID:c\n", "train.txt": SMALL, **files})
    source = open_data(folder)
    assert source.splits == ("train", "dev")
    for asked in ("dev", "valid"):
        found = [post.image for post in source.read(asked)]
        assert found == [folder / images / file for file in ("a.jpg", "b.JPEG", "c.jpg")]


def test_what_real_files_hold_is_survived_and_listed(tmp_path: Path) -> None:
    lines = [
        "\ufeffIMGID:a", "\tO", "\ufe0f\tO", "a\tb\tO", "x\u2028y\tB-OTHER", "I\tI-PER",
        "IMGID:a", "https\tO", "://t.co/1\tO", "", "IMGID:b", "  ", "IMGID:c", "end\tO",
    ]  # fmt: skip
    posts, quirks = read(folder_of(tmp_path, {"test.txt": "\r\n".join(lines)}), "test")
    assert [(post.id, post.words, post.tags) for post in posts] == [
        ("a", ("", "\ufe0f", "a\tb", "x\u2028y", "I"), ("O", "O", "O", "B-MISC", "I-PER")),
        ("a", ("https", "://t.co/1"), ("O", "O")),
        ("b", (), ()),
        ("c", ("end",), ("O",)),
    ]
    assert sorted(kinds(quirks)) == [
        (1, "CRLF line ends"), (1, "byte order mark"), (2, "empty word"), (3, "invisible word"),
        (4, "white space inside a word"), (5, "OTHER for MISC"), (5, "white space inside a word"),
        (6, "lone I- tag"), (7, "no blank line between posts"), (8, "URL cut in two words"),
        (11, "post without words"), (12, "spaces on a blank line"),
        (14, "no blank line at the end"),
    ]  # fmt: skip


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))),
        min_size=1,
        max_size=4,
    )
)
def test_any_words_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, given_: list[list[str]]
) -> None:
    text = "".join(
        f"IMGID:{i}\n" + "".join(f"{word}\tO\n" for word in words) + "\n"
        for i, words in enumerate(given_)
    )
    posts, _ = read(folder_of(tmp_path_factory.mktemp("data"), {"train.txt": text}), "train")
    assert [list(post.words) for post in posts] == given_
    for post in posts:
        assert [post.text[start:end] for start, end in post.spans] == list(post.words)


CLIMBING = ("../a", "/etc/a", "a/b", "a\\b", "..", ".", "a\0b")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.txt", "", ": found no post"),
        ("train.txt", "\n\n", ": found no post"),
        ("train.txt", "a\tO\n", ":1: found the word 'a' outside any post"),
        ("train.txt", "IMGID:1\n\na\tO\n", ":3: found the word 'a' outside any post"),
        ("train.txt", "IMGID:\na\tO\n", ":1: found IMGID: without an id"),
        ("train.txt", "IMGID:1\na O\n", ":2: found 'a O'"),
        ("train.txt", "IMGID:1\na\t0\n", ":2: found the tag '0'"),
        ("train.txt", "IMGID:1\na\tB-PER \n", ":2: found the tag 'B-PER '"),
        ("train.txt", b"IMGID:1\n\xe9\tO\n", ":2: found the byte 0xe9 at column 1"),
        *(("train.txt", f"IMGID:{id}\nx\tO\n", ":1: found the image id") for id in CLIMBING),
        ("relations.tsv", "a\tyes\n", ":1: found the relation 'yes'"),
        ("relations.tsv", "a\t1\nb\tnan\n", ":2: found the relation 'nan'"),
        ("captions.tsv", "a cat\n", ":1: found 'a cat'"),
        ("captions.tsv", "a\tx\na\ty\n", ":2: found a second value for 'a'"),
        ("images.tsv", "a\t../x\n", ":1: found the image id '../x'"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    files: dict[str, str | bytes] = {"train.txt": SMALL, "images/a.jpg": "", name: content}
    with pytest.raises(InputError, match=re.escape(f"{name}{message}")):
        read(folder_of(tmp_path, files), "train")


def test_further_images_have_what_is_known_of_their_ids(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "train.txt": "IMGID:1\nx\tO\n\nIMGID:2\ny\tO\n\n",
        "images/1.jpg": b"",
        "images/b.png": b"",
        "images.tsv": "1\tb gone\n",
        "captions.tsv": "1\ta cat\nb\ta map\n2\t\n",
        "relations.tsv": "b\t1\n",
    }
    (first, second), quirks = read(folder_of(tmp_path, files), "train")
    assert kinds(quirks) == [(3, "empty value")]
    assert (first.caption, first.images[0].relation) == ("a cat", None)
    folder = tmp_path / "images"
    assert first.images[1:] == (
        PostImage(folder / "b.png", "a map", 1.0),
        PostImage(folder / "gone.jpg"),
    )
    assert [image.caption for image in second.images] == [None]


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    unclear: list[tuple[list[str], str]] = [
        (["readme.md"], "found no data files"),
        (["valid.txt", "dev.txt"], "found both valid.txt and dev.txt"),
        (["test.txt", "test.jsonl"], "found both test.txt and test.jsonl"),
        (["test.txt", "a_images/a.jpg", "b_images/a.jpg"], "found a_images and b_images"),
    ]
    for number, (names, found) in enumerate(unclear):
        folder = folder_of(tmp_path / str(number), dict.fromkeys(names, SMALL))
        with pytest.raises(InputError, match=re.escape(found)):
            read(folder, "test")
    folder_of(tmp_path, {"train.txt": SMALL, "posts.csv": ""})
    for name, found in (("nowhere", "nothing"), ("posts.csv", r"ends in '\.csv'")):
        with pytest.raises(InputError, match=found):
            open_data(tmp_path / name)
    with pytest.raises(InputError, match=r"found no split 'test'; expected test\.txt \("):
        open_data(tmp_path).read("test")
    with pytest.raises(InputError, match=r"found no split 'dev'; expected valid\.txt or dev\.txt "):
        open_data(tmp_path).read("dev")
    with pytest.raises(InputError, match=r"found no split 'tset'; expected train$"):
        open_data(tmp_path).read("tset")
