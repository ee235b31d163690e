"""Posts that are split in another way than the model's own are noticed, and only those."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rpbert.data.words import ENOUGH_MARKS, SPLITTERS, MarksWatch, SplittingWarning
from rpbert.inference import Tagger
from rpbert.types import Post
from tests.conftest import SHARED, tiny

TEXT = "RT @ada: at #LakeComo with @bob, so e-mail me ## a@b.org"


def told(watch: MarksWatch, posts: Sequence[Post]) -> int:
    """How often the watch warns of posts that pass one by one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for post in posts:
            watch.see([post])
    return sum(warning.category is SplittingWarning for warning in caught)


def split(style: str, count: int = 40) -> list[Post]:
    words = tuple(TEXT[a:b] for a, b in SPLITTERS[style].split("RT @ada: at #LakeComo with @bob"))
    return [Post.from_words(str(i), words) for i in range(count)]


@pytest.mark.parametrize("style", ["joined", "apart"])
@pytest.mark.parametrize("model", ["joined", "apart"])
def test_the_other_style_is_told_once(style: str, model: str) -> None:
    assert told(MarksWatch(model), split(style)) == (style != model)


def test_few_marks_say_nothing() -> None:
    posts = split("joined", count=(ENOUGH_MARKS - 1) // 3)
    assert told(MarksWatch("apart"), posts) == 0


def test_a_mixture_says_nothing() -> None:
    mixed = [post for pair in zip(split("joined"), split("apart"), strict=True) for post in pair]
    assert told(MarksWatch("apart"), mixed) == told(MarksWatch("joined"), mixed) == 0


@pytest.mark.parametrize("style", ["joined", "apart"])
def test_raw_text_follows_the_model(style: str) -> None:
    """The same texts give the words of the style that the model remembers, without a word."""
    model = tiny("bilstm_crf")
    model = replace(model, vocabulary=replace(model.vocabulary, marks=style))
    tagger = Tagger(model, "cpu")
    words = tuple(TEXT[a:b] for a, b in SPLITTERS[style].split(TEXT))
    assert tagger.as_post(TEXT).words == words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger.predict_batch([TEXT] * 40)
    other = "apart" if style == "joined" else "joined"
    with pytest.warns(SplittingWarning, match="give the raw text"):
        Tagger(model, "cpu").predict_batch(split(other))


def test_twitter_2015_and_2017_are_told_apart(shared: object) -> None:
    from rpbert.data.readers import open_data

    for name, style in (("twitter2015", "joined"), ("twitter2017", "apart")):
        posts = list(open_data(SHARED / name).read("dev"))
        other = "apart" if style == "joined" else "joined"
        assert told(MarksWatch(style), posts) == 0
        assert told(MarksWatch(other), posts) == 1
