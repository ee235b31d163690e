"""One door to data: what a data folder means, what is survived and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.readers import open_data
from rpbert.data.reading import ImageFolder
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
def test_both_spellings_of_the_development_split_and_the_image_folder(
    tmp_path: Path, name: str, images: str
) -> None:
    folder = folder_of(tmp_path, {name: SMALL, "train.txt": SMALL, f"{images}/a.jpg": ""})
    source = open_data(folder)
    assert source.splits == ("train", "dev")
    for asked in ("dev", "valid"):
        posts = [(post.id, post.image) for post in source.read(asked)]
        assert posts == [(id, folder / images / f"{id}.jpg") for id in "ab"]


def test_jpg_is_preferred_and_case_does_not_matter(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.png": "", "a.jpg": "", "a.txt": "", "b.JPEG": ""})
    found = [ImageFolder(folder).find(id, "here").name for id in ("a", "b", "c")]
    assert found == ["a.jpg", "b.JPEG", "c.jpg"]


@pytest.mark.parametrize("id", ["../a", "/etc/a", "a/b", "a\\b", "..", ".", "a\0b"])
def test_an_image_id_never_leaves_its_folder(tmp_path: Path, id: str) -> None:
    folder = folder_of(tmp_path, {"test.txt": f"IMGID:{id}\nx\tO\n", "images/a.jpg": ""})
    with pytest.raises(InputError, match=r"test\.txt:1: found the image id"):
        read(folder, "test")


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
        (1, "CRLF line ends"),
        (1, "byte order mark"),
        (2, "empty word"),
        (3, "invisible word"),
        (4, "white space inside a word"),
        (5, "OTHER for MISC"),
        (5, "white space inside a word"),
        (6, "lone I- tag"),
        (7, "no blank line between posts"),
        (8, "URL cut in two words"),
        (11, "post without words"),
        (12, "spaces on a blank line"),
        (14, "no blank line at the end"),
    ]


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"train\.txt: found no post"),
        ("\n\n", r"train\.txt: found no post"),
        ("a\tO\n", r"train\.txt:1: found the word 'a' outside any post"),
        ("IMGID:1\n\na\tO\n", r"train\.txt:3: found the word 'a' outside any post"),
        ("IMGID:\na\tO\n", r"train\.txt:1: found IMGID: without an id"),
        ("IMGID:1\na O\n", r"train\.txt:2: found 'a O'; .* set a tab"),
        ("IMGID:1\na\t0\n", r"train\.txt:2: found the tag '0'"),
        ("IMGID:1\na\tB-PER \n", r"train\.txt:2: found the tag 'B-PER '"),
        (b"IMGID:1\n\xe9\tO\n", r"train\.txt:2: found the byte 0xe9 at column 1"),
    ],
)
def test_malformed_text_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(folder_of(tmp_path, {"train.txt": content}), "train")


@pytest.mark.parametrize(
    ("companion", "content", "message"),
    [
        ("relations.tsv", "a\tyes\n", r"relations\.tsv:1: found the relation 'yes'"),
        ("relations.tsv", "a\t1\nb\tnan\n", r"relations\.tsv:2: found the relation 'nan'"),
        ("captions.tsv", "a cat\n", r"captions\.tsv:1: found 'a cat'"),
        ("captions.tsv", "a\tx\na\ty\n", r"captions\.tsv:2: found a second value for 'a'"),
        ("images.tsv", "a\t../x\n", r"images\.tsv:1: found the image id '\.\./x'"),
    ],
)
def test_malformed_companions(tmp_path: Path, companion: str, content: str, message: str) -> None:
    files: dict[str, str | bytes] = {"train.txt": SMALL, "images/a.jpg": "", companion: content}
    with pytest.raises(InputError, match=message):
        read(folder_of(tmp_path, files), "train")


def test_an_empty_caption_is_none_and_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"train.txt": SMALL, "captions.tsv": "a\tcat\nb\t\n"})
    posts, quirks = read(folder, "train")
    assert [(post.caption, post.image) for post in posts] == [("cat", None), (None, None)]
    assert kinds(quirks) == [(2, "empty value")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.md": ""}, "found no data files"),
        ({"valid.txt": "", "dev.txt": ""}, "found both valid.txt and dev.txt"),
        ({"test.txt": "", "test.jsonl": ""}, "found both test.txt and test.jsonl"),
    ],
)
def test_folders_that_are_not_clear(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        open_data(folder_of(tmp_path, files))


def test_further_images_have_what_is_known_of_their_ids(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "train.txt": "IMGID:1\nx\tO\n\nIMGID:2\ny\tO\n\n",
        "images/1.jpg": b"",
        "images/b.png": b"",
        "images.tsv": "1\tb gone\n",
        "captions.tsv": "1\ta cat\nb\ta map\n",
        "relations.tsv": "b\t1\n",
    }
    (first, second), _ = read(folder_of(tmp_path, files), "train")
    assert (first.caption, first.images[0].relation) == ("a cat", None)
    folder = tmp_path / "images"
    assert first.images[1:] == (
        PostImage(folder / "b.png", "a map", 1.0),
        PostImage(folder / "gone.jpg"),
    )
    assert len(second.images) == 1


def test_two_image_folders_are_not_guessed_between(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"test.txt": SMALL, "a_images/a.jpg": "", "b_images/a.jpg": ""}
    with pytest.raises(InputError, match="found a_images and b_images"):
        read(folder_of(tmp_path, files), "test")


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
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
