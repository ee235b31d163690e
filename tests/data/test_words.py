"""Raw text → words: nothing lost, offsets exact, whatever the text."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpbert.data.words import (
    ENOUGH_MARKS,
    SPLITTERS,
    MarksWatch,
    SplittingWarning,
    WordSplitter,
    align,
    marks_style,
)
from rpbert.inference import Decoded, Tagger, prediction_of
from rpbert.types import Entity, Post
from tests.conftest import tiny

both_styles = pytest.mark.parametrize("splitter", SPLITTERS.values(), ids=SPLITTERS.keys())
# Plain text, and text dense in what the patterns look for.
ATOMS = ["http://", "www.", "@", "#", "$", "-", "'", "_", "^", ":", ")", "<3", "1", ",", "a", "é",
         "\u0301", "\u200d", "\ufe0f", "\u20e3", "👩", "🏽", "🇫", "🇷", "🏴", "\U000e0067",
         "\0", "\ud800", " ", "\n", "\u3000", "\u2028", "ह", "ि", "漢"]  # fmt: skip
any_text = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=()), max_size=80),
    st.lists(st.sampled_from(ATOMS), max_size=40).map("".join),
)


def words_of(splitter: WordSplitter, text: str) -> list[str]:
    return [text[start:end] for start, end in splitter.split(text)]


@both_styles
@given(text=any_text)
def test_each_visible_character_belongs_to_one_word(splitter: WordSplitter, text: str) -> None:
    spans = splitter.split(text)
    owned = [i for start, end in spans for i in range(start, end)]
    assert owned == [i for i, sign in enumerate(text) if not sign.isspace()]
    assert all(start < end for start, end in spans)
    assert align(words_of(splitter, text), text) == spans


# What stands in a collected post, and what its author wrote.
COLLECTED = r"&amp; &amp;amp; &#39; &#x1F600; &lt; &quot; &amp;gt; &nbsp; &eacute; \n \r\n"
ESCAPED = dict(zip(COLLECTED.split(), [*"&&'😀<\">\u00a0é\n", "\r\n"], strict=True))
ESCAPED["https://t.co/a"] = " https://t.co/a"
PLAIN = [*" :5é&漢\ud800", "AT", "RT @user:", "#NBA", "https://x.yz/q?a"]


@both_styles
@given(parts=st.lists(st.sampled_from([*ESCAPED, *PLAIN]), max_size=20))
def test_escaped_text_has_the_words_of_what_was_written(
    splitter: WordSplitter, parts: list[str]
) -> None:
    text, written = "".join(parts), "".join(ESCAPED.get(part, part) for part in parts)
    spans = splitter.split(text)
    assert splitter.words(text, spans) == tuple(words_of(splitter, written))
    assert all(start < end for start, end in spans)
    edges = list(pairwise([(0, 0), *spans, (len(text), len(text))]))
    assert all(end <= start for (_, end), (start, _) in edges)
    skipped = "".join(text[end:start] for (_, end), (start, _) in edges)
    assert not re.sub(r"&(amp;)*nbsp;|\\[nrt]|\s", "", skipped)


@both_styles
@pytest.mark.parametrize("text", ["&bogus; &#1; & a;", r"a\\nb", "&ampT", "&bne;"])
def test_what_only_looks_escaped_is_as_it_stands(splitter: WordSplitter, text: str) -> None:
    assert splitter.words(text, splitter.split(text)) == tuple(words_of(splitter, text))


def test_a_name_with_an_entity_has_the_offsets_of_the_text_as_given() -> None:
    text = "RT @ada: AT&amp;T&#39;s\\nnews"
    post = Tagger(tiny("bilstm_crf"), "cpu").as_post(text)
    assert post.words[-6:] == ("AT", "&", "T", "'", "s", "news")
    first = len(post.words) - 6
    tags = (*["O"] * first, "B-ORG", "I-ORG", "I-ORG", *["O"] * 3)
    found = prediction_of(post, Decoded(tags, (0.9,), None, "none"))
    assert found.text == text
    assert found.entities == [Entity("AT&amp;T", "ORG", 9, 17, 0.9)]


UNSPACED = {
    "(http://t.co/aB1), see https://t.co/x…": "( http://t.co/aB1 ) , see https://t.co/x …",
    "今天在Apple发布会": "今 天 在 Apple 发 布 会",
    "東京へ行く、スーパー": "東 京 へ 行 く 、 ス ー パ ー",
    "สวัสดี ๒๕": "ส วั ส ดี ๒๕",
    "か\u3099𠮷\U000e0100": "か\u3099 𠮷\U000e0100",
    "한국어 नमस्ते שלום": "한국어 नमस्ते שלום",
}


@pytest.mark.parametrize(
    ("text", "joined", "apart"),
    [
        ("RT @user_1: #NBA!", "RT @user_1 : #NBA !", "RT @ user_1 : # NBA !"),
        ("all-time $AAPL", "all-time $AAPL", "all - time $ AAPL"),
        ("Obama's, O’Neal", "Obama ' s , O ’ Neal", "Obama ' s , O ’ Neal"),
        ("3-2 at 7:30pm", "3-2 at 7:30pm", "3 - 2 at 7:30pm"),
        ("#北京 @王a小 100元", "#北 京 @王 a 小 100 元", "# 北 京 @ 王 a 小 100 元"),
        *((text, words, words) for text, words in UNSPACED.items()),
    ],
)
def test_the_two_styles(text: str, joined: str, apart: str) -> None:
    assert words_of(SPLITTERS["joined"], text) == joined.split(" ")
    assert words_of(SPLITTERS["apart"], text) == apart.split(" ")


WHOLE = (
    "http://t.co/aB1-x https://x.yz/q?a=1&b=2#c www.example.com 10,000 :) :-( ;D :/ <3 ^_^ … हिन्दी "
    "e\u0301te\u0301 می\u200cخواهم 👩🏽\u200d🚀 🇫🇷 1\ufe0f\u20e3 ❤\ufe0f 🤷🏽\u200d♂\ufe0f "
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
)


@both_styles
@pytest.mark.parametrize("word", WHOLE.split())
def test_these_stay_one_word(splitter: WordSplitter, word: str) -> None:
    assert words_of(splitter, f"so {word} (she") == ["so", word, "(", "she"]


def test_the_style_of_a_training_set_is_told_from_it() -> None:
    texts = ("a #b and @c", "no mark", "# alone, #d")
    for style in ("joined", "apart"):
        words = [tuple(words_of(SPLITTERS[style], text)) for text in texts]
        assert marks_style(Post.from_words("1", of) for of in words) == style
    for given_, style in (
        (("今天", "在", "北京", "RT"), "joined-runs"),
        (("今", "天", "北京"), "joined"),
        (("plain", ""), "joined"),
    ):
        assert marks_style([Post.from_words("1", given_)]) == style
    assert words_of(SPLITTERS["joined-runs"], "今天 在") == ["今天", "在"]


def test_alignment_stops_at_the_first_word_not_found() -> None:
    assert align(["b", "", "c", "a", "d"], "a  bc d") == [(3, 4), (4, 4), (4, 5)]


def posts_of(style: str, count: int) -> list[Post]:
    words = tuple(words_of(SPLITTERS[style], "RT @ada: at #LakeComo with @bob"))
    return [Post.from_words(str(i), words) for i in range(count)]


def test_the_other_style_is_warned_of_once_and_few_marks_or_a_mixture_are_not() -> None:
    few, some = posts_of("joined", (ENOUGH_MARKS - 1) // 3), posts_of("joined", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for posts in (posts_of("apart", 40), few, some + posts_of("apart", 20)):
            MarksWatch("apart").see(posts)
        MarksWatch("joined").see(some)
    for model, other in (("joined", "apart"), ("apart", "joined")):
        watch = MarksWatch(model)
        with pytest.warns(SplittingWarning) as caught:
            list(map(watch.see, ([post] for post in posts_of(other, 40))))
        assert len(caught) == 1


@pytest.mark.parametrize(("style", "other"), [("joined", "apart"), ("apart", "joined")])
def test_raw_text_follows_the_model(style: str, other: str) -> None:
    """The same texts give the words of the style that the model remembers, without a warning."""
    model = tiny("bilstm_crf")
    model = replace(model, vocabulary=replace(model.vocabulary, marks=style))
    tagger = Tagger(model, "cpu")
    text = "RT @ada: at #LakeComo with @bob, so e-mail me ## a@b.org"
    assert tagger.as_post(text).words == tuple(words_of(SPLITTERS[style], text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger.predict_batch([text] * 40)
    with pytest.warns(SplittingWarning):
        Tagger(model, "cpu").predict_batch(posts_of(other, 40))
