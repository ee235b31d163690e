"""Made posts: the truth that is written is true, and neither text nor chance gives it away."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.synthetic import phrases
from rpbert.synthetic.controlled import TITLE, MadePost, Options, make, make_post

POSTS = 200
SPLITS = ("train", "valid", "test")
CUES = frozenset().union(*phrases.CUES.values())
ANY_OPTIONS = st.builds(
    Options,
    posts=st.just(10),
    relevant=st.floats(0, 1),
    ambiguous=st.floats(0, 1),
    seed=st.integers(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("controlled") / "made"
    make(path, posts=POSTS, seed=3, image_size=96)
    return path


@pytest.fixture(scope="module")
def truth(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "entities.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="module")
def many() -> list[MadePost]:
    options = Options(posts=12_000)
    return [make_post(index, options) for index in range(options.posts)]


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _named_by(post: MadePost) -> str:
    """The main name of a post where that is ambiguous, letters only; no other name ever is."""
    name = next(str(e["text"]) for e in post.entities() if len(e["could_be"]) > 1)
    return "".join(filter(str.isalnum, name.lower()))


def test_the_same_options_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(tmp_path / name, posts=20, seed=seed, image_size=48)
    first, again, other = (_bytes(tmp_path / name) for name in "abc")
    assert first == again
    assert len(first) == 20 + 7
    assert all(first[name] != other[name] for name in first if name != "relations.tsv")


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    for posts in (20, 40):
        make(tmp_path / str(posts), posts=posts, image_size=48)
    small, large = _bytes(tmp_path / "20"), _bytes(tmp_path / "40")
    assert all(large[name].startswith(small[name]) for name in small if name != "README.md")


@given(st.integers(10, 400), st.floats(0, 1), st.floats(0, 1))
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


def test_the_default_set_has_the_rates_it_promises(many: list[MadePost]) -> None:
    total = len(many)
    rates = Counter(post.split for post in many)
    assert [rates[split] / total for split in SPLITS] == [0.7, 0.1, 0.2]
    assert sum(post.relation for post in many) == round(0.44 * total)
    assert sum(post.label is None for post in many) == pytest.approx(0.05 * total, abs=3)
    for kind in (0, 1):
        clued = [post for post in many if post.clue and post.relation == kind]
        main_ambiguous = sum(any(len(e["could_be"]) > 1 for e in p.entities()) for p in clued)
        assert main_ambiguous / len(clued) == pytest.approx(0.65, abs=0.03)


@given(st.integers(0, 100_000), ANY_OPTIONS)
def test_the_image_shows_the_main_type_exactly_if_it_is_relevant(index: int, o: Options) -> None:
    post = make_post(index, o)
    assert post.relation == int(post.shows == post.label)
    if not post.relation:
        assert post.shows not in {entity["label"] for entity in post.entities()}
    assert (post.label is None) == (not post.entities())


@given(st.integers(0, 100_000), ANY_OPTIONS)
def test_tags_offsets_and_entities_agree(index: int, options: Options) -> None:
    post = make_post(index, options)
    words = [token.word for token in post.tokens]
    assert all(word and not any(c.isspace() for c in word) for word in words)
    expected = [
        (" ".join(words[first : last + 1]), label)
        for label, first, last in get_entities([token.tag for token in post.tokens])
    ]
    found = post.entities()
    assert [(e["text"], e["label"]) for e in found] == expected
    assert all(post.text[e["start"] : e["end"]] == e["text"] for e in found)
    assert all(e["label"] in e["could_be"] for e in found)


def test_text_files_companions_and_truth_tell_the_same(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    by_id = {row["id"]: row for row in truth}
    assert len(by_id) == POSTS
    source = open_data(folder)
    for split in SPLITS:
        posts = list(source.read(split))
        assert [post.id for post in posts] == [r["id"] for r in truth if r["split"] == split]
        for post in posts:
            row = by_id[post.id]
            assert (list(post.words), post.text) == (row["tokens"], row["text"])
            assert (post.caption, post.relation) == (row["caption"], row["relation"])
            assert post.tags is not None
            tagged = [post.words[k] for k, tag in enumerate(post.tags) if tag != "O"]
            assert tagged == [word for e in row["entities"] for word in e["text"].split()]


def test_the_truth_is_itself_a_data_file(folder: Path, truth: list[dict[str, Any]]) -> None:
    posts = list(open_data(folder / "entities.jsonl").read("all"))
    assert [post.id for post in posts] == [row["id"] for row in truth]
    for post, row in zip(posts, truth, strict=True):
        assert post.tags is not None
        assert sum(tag.startswith("B-") for tag in post.tags) == len(row["entities"])
        assert post.image == folder / row["image"]


def test_of_several_images_one_adds_where_the_post_is_relevant(tmp_path: Path) -> None:
    make(tmp_path, posts=60, image_size=48, images=3)
    options = Options(posts=60, image_size=48, images=3)
    lines = (tmp_path / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    by_id = {row["id"]: row for row in map(json.loads, lines)}
    places = Counter[int]()
    for split in SPLITS:
        for post in open_data(tmp_path).read(split):
            made, row = make_post(int(post.id.removeprefix("made_")), options), by_id[post.id]
            named = {e["label"] for e in made.entities()}
            shown = [s.relation for s in post.images]
            assert shown == row["relation"]
            assert shown.count(1.0) == made.relation
            assert [s.caption for s in post.images] == row["caption"]
            assert [s.image for s in post.images] == [tmp_path / name for name in row["image"]]
            assert all(Path(str(s.image)).is_file() for s in post.images)
            for relation, shows in zip(shown, row["shows"], strict=True):
                assert (shows == made.label) if relation else (shows not in named)
                assert (shows is None) == (not relation and made.relation == 1 and not made.clue)
            places[shown.index(1.0) if made.relation else 3] += 1
    assert min(places.values()) > 2
    read = list(open_data(tmp_path / "entities.jsonl").read("all"))
    assert all(len(post.images) == 3 for post in read)


def test_the_own_image_of_a_post_is_the_same_however_many_there_are(tmp_path: Path) -> None:
    for images in (1, 3):
        make(tmp_path / str(images), posts=10, image_size=48, images=images)
    one, three = (_bytes(tmp_path / name) for name in "13")
    of_three = [content for name, content in three.items() if name.startswith("images/")]
    assert len(of_three) == 30
    assert all(content in of_three for name, content in one.items() if name.startswith("images/"))
    for name in ("train.txt", "valid.txt", "test.txt"):
        assert one[name] == three[name]
    assert "images.tsv" not in one


def test_images_open_and_vary_in_shape(folder: Path, truth: list[dict[str, Any]]) -> None:
    sizes = set()
    for row in truth:
        with Image.open(folder / row["image"]) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    assert len(sizes) > POSTS / 4
    assert len(list((folder / "images").iterdir())) == POSTS
    kinds = {"PER": "person", "LOC": "landscape", "ORG": "logo", "MISC": "object"}
    assert all(row["scene"] == kinds[row["shows"]] for row in truth)


def test_only_templates_of_a_type_hold_its_clues() -> None:
    assert sum(map(len, phrases.CUES.values())) == len(CUES)
    for label, templates in phrases.CUE_TEMPLATES.items():
        assert len(set(templates)) >= 25
        assert 15 <= len(phrases.CUES[label]) <= 25
        for template in templates:
            assert "{x}" in template.split()
            clues = set(template.split()) & CUES
            assert clues
            assert clues <= phrases.CUES[label]
        assert phrases.CUES[label] <= {word for line in templates for word in line.split()}
    assert len(set(phrases.NEUTRAL_TEMPLATES)) >= 40
    assert all("{x}" in template.split() for template in phrases.NEUTRAL_TEMPLATES)
    names = (phrases.AMBIGUOUS_NAMES, phrases.FIRST_NAMES, phrases.LAST_NAMES, phrases.ROOTS)
    frames = (phrases.OPENINGS, phrases.CLOSINGS, phrases.HASHTAGS, phrases.HANDLES, phrases.TIMES)
    texts = (phrases.NEUTRAL_TEMPLATES, phrases.EMPTY_TEMPLATES, phrases.FURTHER_TEMPLATES)
    shapes = tuple(phrases.SHAPES.values())
    for line in (line for lines in (*names, *frames, *texts, *shapes) for line in lines):
        assert not set(line.lower().split()) & CUES, line


def test_names_that_tell_their_type_share_no_word_with_those_that_do_not() -> None:
    ambiguous = phrases.AMBIGUOUS_NAMES
    assert len(set(ambiguous)) == len(ambiguous) >= 60
    assert any(" " in name for name in ambiguous)
    parts = {word for name in ambiguous for word in name.split()}
    assert not parts & {*phrases.FIRST_NAMES, *phrases.LAST_NAMES, *phrases.ROOTS}
    shape_words = [
        {word for shape in phrases.SHAPES[label] for word in shape.split() if "{" not in word}
        for label in ("LOC", "ORG", "MISC")
    ]
    assert len(set.union(*shape_words) - {"of"}) == sum(len(own - {"of"}) for own in shape_words)


def test_a_clue_stands_in_the_text_exactly_where_it_is_said_to(many: list[MadePost]) -> None:
    for post in many:
        words = {token.word.lower() for token in post.tokens if token.tag == "O"}
        assert bool(words & CUES) == post.clue
        if post.clue and post.label is not None:
            assert words & CUES <= phrases.CUES[post.label]


def test_an_ambiguous_name_says_nothing_of_its_type(many: list[MadePost]) -> None:
    """Chi-square test of independence over the table of names and types."""
    unclued = [post for post in many if post.relation and not post.clue]
    labels = list(phrases.LABELS)
    names = sorted({"".join(filter(str.isalnum, n.lower())) for n in phrases.AMBIGUOUS_NAMES})
    table = np.zeros((len(names), 4))
    for post in unclued:
        assert post.label is not None
        table[names.index(_named_by(post)), labels.index(post.label)] += 1
    assert table.sum() == pytest.approx(0.44 * len(many) * 0.65, abs=2)
    assert (table.sum(axis=1) > 0).all()
    assert chi2_contingency(table).pvalue > 0.001


def test_the_text_alone_leaves_the_type_open(many: list[MadePost]) -> None:
    """An oracle knows every clue; without one, words learnt from half the posts tell nothing."""
    unclued = [post for post in many if post.relation and not post.clue]
    bag = CountVectorizer(token_pattern=r"\S+").fit_transform([post.text for post in unclued])
    labels = np.array([post.label for post in unclued])
    half = len(unclued) // 2
    guessed = MultinomialNB().fit(bag[:half], labels[:half]).score(bag[half:], labels[half:])
    slack = 3 * math.sqrt(0.25 * 0.75 / half)
    assert guessed < 0.25 + slack
    best = 1 - len(unclued) / len(many) * (1 - guessed)
    assert best <= 1 - 0.44 * 0.65 * 0.75 + slack


def test_the_words_of_a_clue_leave_the_relation_open(many: list[MadePost]) -> None:
    clued = [post for post in many if post.clue]
    bag = CountVectorizer(token_pattern=r"\S+").fit_transform([post.text for post in clued])
    relations = np.array([post.relation for post in clued])
    half = len(clued) // 2
    guessed = MultinomialNB().fit(bag[:half], relations[:half]).score(bag[half:], relations[half:])
    assert guessed < 1 - relations.mean() + 0.02


def test_tweets_noise_is_in_the_posts(many: list[MadePost]) -> None:
    texts = [post.text for post in many]
    for mark, share in (("RT @ ", 0.12), ("http://t.co/", 0.2), (" ️", 0.02)):
        assert sum(mark in text for text in texts) / len(texts) == pytest.approx(share, abs=0.03)
    assert sum(any(emoji in text for emoji in phrases.EMOJI) for text in texts) > len(texts) / 5
    hashed = sum(
        before.word == "#" and after.tag.startswith("B-")
        for post in many
        for before, after in zip(post.tokens, post.tokens[1:], strict=False)
    )
    assert hashed / sum(len(post.entities()) for post in many) == pytest.approx(0.08, abs=0.02)


def test_a_few_words_are_misspelt(many: list[MadePost]) -> None:
    lists = (phrases.NEUTRAL_TEMPLATES, phrases.EMPTY_TEMPLATES, phrases.FURTHER_TEMPLATES)
    frames = (phrases.OPENINGS, phrases.CLOSINGS, phrases.HASHTAGS, phrases.TIMES)
    lines = [line for part in (*phrases.CUE_TEMPLATES.values(), *lists, *frames) for line in part]
    known = {word for line in lines for word in line.split()}
    outside = [token.word.lower() for post in many for token in post.tokens if token.tag == "O"]
    words = [word for word in outside if word.isalpha() and word not in CUES and len(word) > 3]
    misspelt = [word for word in words if word not in known]
    assert 0.01 < len(misspelt) / len(words) < 0.06
    assert any(letter * 3 in word for word in misspelt for letter in "aeiou")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posts": 9}, "posts: found 9; expected 10 or more"),
        ({"relevant": 1.2}, "relevant: found 1.2; expected a share between 0 and 1"),
        ({"relevant": math.nan}, "relevant: found nan; expected a share between 0 and 1"),
        ({"ambiguous": -0.1}, "ambiguous: found -0.1; expected a share between 0 and 1"),
        ({"image_size": 8}, "image_size: found 8; expected 32 to 2048 pixels"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        make(tmp_path / "made", **options)
    assert str(error.value) == message
    assert not (tmp_path / "made").exists()


def test_what_was_not_made_here_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My photographs\n", encoding="utf-8")
    before = _bytes(tmp_path)
    with pytest.raises(InputError, match="nothing was written"):
        make(tmp_path, posts=10, image_size=32)
    assert _bytes(tmp_path) == before
    with pytest.raises(InputError, match="found a file"):
        make(tmp_path / "README.md", posts=10, image_size=32)
    with pytest.raises(InputError, match="a folder that can be written"):
        make(tmp_path / "README.md" / "below", posts=10, image_size=32)


def test_a_made_folder_is_made_anew_and_files_of_others_stay(tmp_path: Path) -> None:
    make(tmp_path, posts=20, image_size=32, images=2)
    others = [tmp_path / name for name in ("notes.txt", "images/made_99.jpg", "images/mine.jpg")]
    for path in others:
        path.write_text("mine", encoding="utf-8")
    make(tmp_path, posts=10, seed=1, image_size=32)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(TITLE)
    assert "- posts: 10\n" in readme
    assert "- seed: 1\n" in readme
    assert len((tmp_path / "entities.jsonl").read_text(encoding="utf-8").splitlines()) == 10
    assert not (tmp_path / "images.tsv").exists()
    named = {f"made_{number:06d}.jpg" for number in range(10)}
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == named | {"made_99.jpg", "mine.jpg"}
    assert {path.read_text(encoding="utf-8") for path in others} == {"mine"}
