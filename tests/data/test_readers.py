"""One door to data: what folders of text files and of published relation labels mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.types import Post, PostImage
from tests.data.files import folder_of, jsonl, kinds, read

SMALL = "IMGID:a\nAnna\tB-PER\nsleeps\tO\n\nIMGID:b\nRome\tB-LOC\n\n"


def test_a_data_folder(tmp_path: Path) -> None:
    """What is known of images by their ids comes to first and to further images."""
    beside = {
        "images.tsv": "a\tc gone\n",
        "captions.tsv": "a\ta cat\nc\ta map\nb\t\n",
        "knowledge.tsv": "b\tRome is a city\n",
        "relations.tsv": "b\t1\nc\t0.5\n",
    }
    files = {"train.txt": SMALL, "images/b.png": "", "images/c.png": "", **beside}
    folder = folder_of(tmp_path, files)  # type: ignore[arg-type]
    posts, quirks = read(folder, "train")
    assert kinds(quirks) == [(3, "empty value")]
    images = folder / "images"
    of_a = (PostImage(images / "a.jpg", "a cat"), PostImage(images / "c.png", "a map", 0.5),
            PostImage(images / "gone.jpg"))  # fmt: skip
    assert posts == [
        Post("a", ("Anna", "sleeps"), "Anna sleeps", ((0, 4), (5, 11)), ("B-PER", "O"),
             of_a, f"{folder / 'train.txt'}:1"),
        Post("b", ("Rome",), "Rome", ((0, 4),), ("B-LOC",),
             (PostImage(images / "b.png", None, 1.0, knowledge="Rome is a city"),),
             f"{folder / 'train.txt'}:5"),
    ]  # fmt: skip


@pytest.mark.parametrize(("images", "placeholder"), [(50, False), (51, True)])
def test_a_caption_of_far_too_many_images_is_that_of_a_placeholder(
    tmp_path: Path, images: int, placeholder: bool
) -> None:
    others = "".join(f"o{i}\tphoto {i}\n" for i in range(20))
    captions = others + "".join(f"p{i}\ta man in the snow\n" for i in range(images))
    posts = "IMGID:p1\nAnna\tO\n\nIMGID:o1\nRome\tO\n\n"
    found, quirks = read(
        folder_of(tmp_path, {"train.txt": posts, "captions.tsv": captions}), "train"
    )
    assert [post.caption is None for post in found] == [placeholder, False]
    named = [(line, kind) for line, kind in kinds(quirks) if kind == "placeholder caption"]
    assert named == [(line, "placeholder caption") for line in range(21, 72) if placeholder]


def test_the_placeholder_of_twitter_2017_has_no_caption(shared: Path) -> None:
    """Two captions of 2015 are empty."""
    for year, expected in (("2017", (250, 58, 50)), ("2015", (1, 1, 0))):
        source = open_data(shared / f"twitter{year}")
        bare = (sum(post.caption is None for post in source.read(s)) for s in source.splits)
        assert tuple(bare) == expected


@pytest.mark.parametrize(
    ("name", "images"), [("dev.txt", "images"), ("valid.txt", "twitter2015_images")]
)
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


SIGNS = st.characters(exclude_characters="\n\t", exclude_categories=["Cs"])


@given(st.lists(st.lists(st.text(SIGNS)), min_size=1, max_size=4))
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
    ("name", "content", "found"),
    [
        ("train.txt", "", ": found no post"),
        ("train.txt", "a\tO\nIMGID:1\n", ":1: found the word 'a'"),
        ("train.txt", "IMGID:\na\tO\n", ":1: found IMGID:"),
        ("train.txt", "IMGID:1\na O\nb\tO\n", ":2: found 'a O'"),
        ("train.txt", "IMGID:1\na\tO\nb\tB-X\tO\nc\tO\n", ":3: found a tag in the word"),
        ("train.txt", "a x O\nb y O\nc O\n", ":3: found 'c O'; expected 3 columns"),
        ("train.txt", "a O NN\nb O VV\n", ":1: found the tag 'NN'"),
        ("train.txt", "IMGID:1\na\tB-PER \n", ":2: found the tag 'B-PER '"),
        ("train.txt", b"IMGID:1\n\xe9\tO\n", ":2: found the byte 0xe9 at column 1"),
        *(
            ("train.txt", f"IMGID:{id}\nx\tO\n", ":1: found the image id")
            for id in ("..", "a/b", "a\\b", "\0")
        ),
        ("relations.tsv", "a\tyes\n", ":1: found the relation 'yes'"),
        ("relations.tsv", "a\t1\nb\tnan\n", ":2: found the relation 'nan'"),
        ("captions.tsv", "a cat\n", ":1: found 'a cat'"),
        ("captions.tsv", "a\tx\na\ty\n", ":2: found a second value for 'a'"),
        ("images.tsv", "a\t../x\n", ":1: found the image id '../x'"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str | bytes, found: str) -> None:
    files: dict[str, str | bytes] = {"train.txt": SMALL, "images/a.jpg": "", name: content}
    with pytest.raises(InputError, match=re.escape(f"{name}{found}")):
        read(folder_of(tmp_path, files), "train")


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        ("readme.md", "test", "no data files"),
        ("valid.txt dev.txt", "test", "both valid.txt and dev.txt"),
        ("test.txt test.jsonl", "test", "both test.txt and test.jsonl"),
        ("test.txt a_images/a.jpg b_images/a.jpg", "test", "a_images and b_images"),
        ("train.txt", "test", "no split 'test'; expected test.txt ("),
        ("train.txt", "dev", "no split 'dev'; expected valid.txt or dev.txt "),
        ("train.txt", "tset", "no split 'tset'; expected train"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path: Path, names: str, split: str, found: str) -> None:
    folder_of(tmp_path, dict.fromkeys(names.split(), SMALL))
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: found {found}")):
        read(tmp_path, split)
    folder_of(tmp_path, {"posts.csv": ""})
    for name, of in (("nowhere", "nothing"), ("posts.csv", r"ends in '\.csv'")):
        with pytest.raises(InputError, match=of):
            open_data(tmp_path / name)


TRC = (
    "tweet_id,text_is_represented,image_adds,image_adds_text_repr,image_adds_text_notrepr,"
    "image_notadds_text_repr,image_notadds_text_notrepr,,,"
)


DAMAGE = ("rewritten", "shifted", "damaged")


def test_relation_labels_are_joined_with_the_users_tweets(tmp_path: Path) -> None:
    rows = [
        "10,0,0,0,0,0,1,,,",
        "11,0,1,0,1,0,0,,,",
        "6.92E+17,1,1,1,0,0,0,,,",
        '12,so, it \\" said",1,1,1,0,0,0,',
        "13,0,0,0,0,1,,,,",
        "14,0,1,1,0,0,0,,,",
        "15,1,0,0,0,1,0,,,",
    ]
    tweets: dict[str | int, str] = {11: "eleven", "12": "twelve", "10": "ten", 10: "again"}
    tweets |= {"6.92E+17": "never joined", "99": "alone"}
    folder = folder_of(tmp_path, {"labels.csv": "\r\n".join([TRC, *rows, ""]), "images/11.png": ""})
    with pytest.raises(InputError, match=r"no tweets\.jsonl beside labels\.csv"):
        read(folder, "train")
    jsonl(folder / "tweets.jsonl", [{"id": "99", "text": "alone"}])
    with pytest.raises(InputError, match=r"tweets\.jsonl: found none of the 4 ids"):
        read(folder, "train")
    jsonl(folder / "tweets.jsonl", ({"id": id, "text": text} for id, text in tweets.items()))
    posts, quirks = read(folder, "train")
    assert [(post.id, post.text, post.relation, post.image) for post in posts] == [
        ("11", "eleven", 1.0, folder / "images" / "11.png"),
        ("12", "twelve", 1.0, folder / "images" / "12.jpg"),
        ("10", "ten", 0.0, folder / "images" / "10.jpg"),
    ]
    assert sorted((quirk.file, quirk.line, quirk.kind) for quirk in quirks) == [
        ("labels.csv", 1, "CRLF line ends"),
        ("labels.csv", 4, "id rewritten by a spreadsheet, dropped"),
        ("labels.csv", 5, "row shifted by commas, recovered"),
        ("labels.csv", 6, "damaged row, dropped"),
        ("labels.csv", 7, "damaged row, dropped"),
        ("labels.csv", 8, "no tweet for the label"),
        ("tweets.jsonl", 4, "tweet given twice"),
    ]


def test_the_published_labels_in_full(shared: Path, tmp_path: Path) -> None:
    """Published: 4,471 rows, of which the first 3,576 train; line 1 is the header."""
    labels = (shared / "trc" / "textimage.csv").read_bytes()
    folder_of(tmp_path, {"any.csv": labels})
    rows = [line.split(",")[0] for line in labels.decode().splitlines()[1:]]
    jsonl(tmp_path / "tweets.jsonl", ({"id": id, "text": "made"} for id in rows))
    (train, quirks), (test, more) = read(tmp_path, "train"), read(tmp_path, "test")
    lines = {kind: {q.line for q in quirks + more if kind in q.kind} for kind in DAMAGE}
    assert [len(lines[kind]) for kind in DAMAGE] == [28, 32, 2]
    lost = lines["rewritten"] | lines["damaged"]
    kept = [id for line, id in enumerate(rows, start=2) if line not in lost]
    assert [post.id for post in train + test] == kept
    assert len(train) == 3576 - sum(line <= 3577 for line in lost)
    assert len(kept) == 4471 - len(lost)
    share = sum(post.relation == 0 for post in train + test) / len(kept)
    assert share == pytest.approx(0.558, abs=0.001)
