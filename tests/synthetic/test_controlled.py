"""Made posts: the truth that is written is true, and neither text nor chance gives it away."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.synthetic.controlled import (
    ALL_CUES,
    CUES,
    TITLE,
    MadePost,
    Options,
    make,
    make_post,
)

POSTS = 200
SPLITS = ("train", "valid", "test")
SHARE = st.floats(0, 1)
ANY_OPTIONS = st.builds(Options, relevant=SHARE, ambiguous=SHARE, seed=st.integers())


@pytest.fixture(scope="module")
def many() -> list[MadePost]:
    """Posts of one seed, whose words never change."""
    options = Options(posts=12_000)
    posts = [make_post(index, options) for index in range(options.posts)]
    words = repr([[*map(tuple, post.tokens), post.shows] for post in posts])
    assert hashlib.md5(words.encode()).hexdigest() == "c99a0c3f4c25611760758c9af8d0235d"
    return posts


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The truth of a made folder."""
    lines = (folder / "entities.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_options_give_the_same_bytes_and_more_posts_the_same_and_others(
    tmp_path: Path,
) -> None:
    for name, seed, posts in (("a", 1, 20), ("b", 1, 20), ("c", 2, 20), ("d", 1, 40)):
        make(tmp_path / name, posts=posts, seed=seed, image_size=48)
    first, again, other, larger = (_bytes(tmp_path / name) for name in "abcd")
    assert first == again
    assert len(first) == 20 + 7
    assert all(first[name] != other[name] for name in first if name != "relations.tsv")
    assert all(larger[name].startswith(first[name]) for name in first if name != "README.md")


@given(st.integers(10, 400), SHARE, SHARE)
def test_shares_are_exact_in_every_split(posts: int, relevant: float, ambiguous: float) -> None:
    options = Options(posts=posts, relevant=relevant, ambiguous=ambiguous)
    made = [make_post(index, options) for index in range(posts)]
    for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        own = [post for post in made if post.split == split]
        assert abs(len(own) - posts * share) < 2
        related = [post for post in own if post.relation]
        assert abs(len(related) - relevant * len(own)) <= 0.5 + 1e-6
        unclued = sum(not post.clue for post in related)
        assert abs(unclued - ambiguous * len(related)) <= 0.5 + 1e-6


@given(st.integers(0, 100_000), ANY_OPTIONS)
def test_image_tags_offsets_and_entities_agree(index: int, options: Options) -> None:
    post = make_post(index, options)
    found = post.entities()
    assert post.relation == int(post.shows == post.label)
    assert post.relation or post.shows not in {entity["label"] for entity in found}
    assert (post.label is None) == (not found)
    words = [token.word for token in post.tokens]
    assert all(word and not any(c.isspace() for c in word) for word in words)
    expected = [
        (" ".join(words[first : last + 1]), label)
        for label, first, last in get_entities([token.tag for token in post.tokens])
    ]
    assert [(e["text"], e["label"]) for e in found] == expected
    assert all(post.text[e["start"] : e["end"]] == e["text"] for e in found)
    assert all(e["label"] in e["could_be"] for e in found)


def test_every_file_of_the_folder_tells_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    make(folder, posts=POSTS, seed=3, image_size=96)
    truth = rows_of(folder)
    source = open_data(folder)
    posts = {split: list(source.read(split)) for split in SPLITS}
    posts["all"] = list(open_data(folder / "entities.jsonl").read("all"))
    assert len(posts["all"]) == POSTS
    for split, read in posts.items():
        rows = [row for row in truth if split in ("all", row["split"])]
        for post, row in zip(read, rows, strict=True):
            assert (post.id, list(post.words), post.text) == (row["id"], row["tokens"], row["text"])
            assert (post.caption, post.relation) == (row["caption"], row["relation"])
            assert post.image == folder / row["image"]
            assert post.tags is not None
            assert sum(tag.startswith("B-") for tag in post.tags) == len(row["entities"])
            tagged = [post.words[k] for k, tag in enumerate(post.tags) if tag != "O"]
            assert tagged == [word for e in row["entities"] for word in e["text"].split()]
    kinds = {"PER": "person", "LOC": "landscape", "ORG": "logo", "MISC": "object"}
    assert all(row["scene"] == kinds[row["shows"]] for row in truth)
    images = [Image.open(folder / row["image"]) for row in truth]
    assert {(image.format, image.mode) for image in images} == {("JPEG", "RGB")}
    assert len({image.size for image in images}) > POSTS / 4
    assert len(list((folder / "images").iterdir())) == POSTS


def test_of_several_images_one_adds_where_the_post_is_relevant(tmp_path: Path) -> None:
    one, three = tmp_path / "1", tmp_path / "3"
    for folder, images in ((one, 1), (three, 3)):
        make(folder, posts=60, image_size=48, images=images)
    by_id = {row["id"]: row for row in rows_of(three)}
    places = Counter[int]()
    for post in open_data(three / "entities.jsonl").read("all"):
        made, row = make_post(int(post.id.removeprefix("made_")), Options()), by_id[post.id]
        named = {e["label"] for e in made.entities()}
        shown = [s.relation for s in post.images]
        assert (shown, len(shown)) == (row["relation"], 3)
        assert shown.count(1.0) == made.relation
        assert [s.image for s in post.images] == [three / name for name in row["image"]]
        for relation, shows in zip(shown, row["shows"], strict=True):
            assert (shows == made.label) if relation else (shows not in named)
        places[shown.index(1.0) if made.relation else 3] += 1
    assert min(places.values()) > 2
    # The own image and the words of a post are the same however many images there are.
    first, more = _bytes(one), _bytes(three)
    drawn = {content for name, content in more.items() if name.startswith("images/")}
    assert len(drawn) == 180
    assert drawn >= {content for name, content in first.items() if name.startswith("images/")}
    assert all(first[name] == more[name] for name in ("train.txt", "valid.txt", "test.txt"))
    assert "images.tsv" not in first


def test_a_clue_stands_in_the_text_exactly_where_it_is_said_to(many: list[MadePost]) -> None:
    for post in many:
        clues = {token.word.lower() for token in post.tokens if token.tag == "O"} & ALL_CUES
        assert bool(clues) == post.clue
        assert not clues or post.label is None or clues <= set(CUES[post.label])


def _guessed(posts: list[MadePost], truths: list[Any]) -> float:
    """How often words learnt from half of the posts tell the truth of the other half."""
    bag = CountVectorizer(token_pattern=r"\S+").fit_transform([post.text for post in posts])
    half = len(posts) // 2
    return float(MultinomialNB().fit(bag[:half], truths[:half]).score(bag[half:], truths[half:]))


def test_the_text_alone_leaves_type_and_relation_open(many: list[MadePost]) -> None:
    """An oracle knows every clue; without one, words learnt from half the posts tell nothing."""
    unclued = [post for post in many if post.relation and not post.clue]
    guessed = _guessed(unclued, [post.label for post in unclued])
    slack = 3 * math.sqrt(0.25 * 0.75 / (len(unclued) // 2))
    assert guessed < 0.25 + slack
    best = 1 - len(unclued) / len(many) * (1 - guessed)
    assert best <= 1 - 0.44 * 0.65 * 0.75 + slack
    clued = [post for post in many if post.clue]
    relations = [post.relation for post in clued]
    assert _guessed(clued, relations) < 1 - sum(relations) / len(relations) + 0.02


def test_a_wrong_option_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    wrong = {"posts": 9, "relevant": math.nan, "ambiguous": -0.1, "image_size": 8, "images": 10}
    for option, value in wrong.items():
        with pytest.raises(InputError, match=f"found {option} = {value}"):
            make(tmp_path / "made", **{option: value})
    readme = tmp_path / "README.md"
    readme.write_text("# My photographs\n", encoding="utf-8")
    for folder in (tmp_path, readme, readme / "below"):  # what was not made here
        with pytest.raises(InputError):
            make(folder, posts=10, image_size=32)
    assert _bytes(tmp_path) == {"README.md": b"# My photographs\n"}


def test_a_made_folder_is_made_anew_and_files_of_others_stay(tmp_path: Path) -> None:
    make(tmp_path, posts=20, image_size=32, images=2)
    others = [tmp_path / name for name in ("notes.txt", "images/made_99.jpg", "images/mine.jpg")]
    for path in others:
        path.write_text("mine", encoding="utf-8")
    make(tmp_path, posts=10, seed=1, image_size=32)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(TITLE)
    assert {"- posts: 10", "- seed: 1"} <= set(readme.splitlines())
    assert len(rows_of(tmp_path)) == 10
    assert not (tmp_path / "images.tsv").exists()
    named = {f"made_{number:06d}.jpg" for number in range(10)}
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == named | {"made_99.jpg", "mine.jpg"}
    assert {path.read_text(encoding="utf-8") for path in others} == {"mine"}
