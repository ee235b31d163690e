"""Any text is tagged at exact offsets: all of Unicode, any language, many tags, any length."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import accumulate, pairwise

import pytest
import torch

from rpbert import Post, Tagger
from rpbert.types import Prediction
from tests.conftest import NAMES, tiny
from tests.families import TEXT_FAMILIES
from tests.soak import Soak

RANGES = [(0xD800, 0xE000), (0x300, 0x370)]
"""Of surrogates and of combining marks."""
EMOJI = ["👩\u200d👩\u200d👧\u200d👦", "👍🏽", "🏴\u200d☠️", "🇫🇷", "1️⃣", "❤️", "🏳️\u200d🌈", "☺︎", "😀"]
WORDS = ["RT", "@Ada_L", "#NBA", "Kevin", "Love", "https://t.co/x", "don't", "all-time", "$AAPL"]
WORDS += ["नमस्ते", "שלום", "مرحبا", "你好世界", "ﬁn", "Å", "A\u030a", "ẞ", "İ", "ǆ", "ΣΑΣ", "¼", "٣"]
SPACES = " \t\n\r\v\f\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u3000"
SIGNS = "\0\x01\x1b\x7f\u00ad\u200b\u200d\u200e\u202e\u2066\ufe0f\ufeff\ufffd\uffff\U000e0041"


def text_of(draw: random.Random) -> str:
    """A text of one kind of sign or of all, mostly short; one in a hundred has 10,000 of them."""
    # Of the whole range, surrogates and noncharacters among them.
    any_sign = [chr(draw.randrange(2 ** draw.choice((7, 11, 16, 20)))) for _ in range(60)]
    surrogates, marks = ([chr(draw.randrange(a, b)) for _ in range(60)] for a, b in RANGES)
    words = [word + draw.choice(" ,'") for word in WORDS]
    kinds = [any_sign, surrogates, marks, words, EMOJI, list(SPACES), list(SIGNS)]
    mixed = [sign for kind in kinds for sign in draw.choices(kind, k=40)]
    length = draw.choice([0, 1, 2, 5, 20, 60]) if draw.random() < 0.99 else 10_000
    return "".join(draw.choices(draw.choice([*kinds, *[mixed] * 7]), k=length))[:length]


def finder(system: str, marks: str) -> Tagger:
    """A tagger that calls most words part of a name."""
    model = tiny(system)
    with torch.no_grad():
        bias = model.system.get_parameter("tagger.to_tags.bias")
        of = [{"O": -1.0, "B": 0.5, "I": 0.6}[tag[0]] for tag in model.vocabulary.tags]
        bias.add_(torch.tensor(of))
    object.__setattr__(model.vocabulary, "marks", marks)
    return Tagger(model, "cpu")


def cleaned(text: str) -> str:
    """What a text reads as: a surrogate is no character."""
    return "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)


def hold(prediction: Prediction, text: str) -> int:
    """Hold a prediction to its text; returns how many entities it has."""
    assert prediction.text == text
    for entity in prediction.entities:
        assert text[entity.start : entity.end] == entity.text
        assert entity.start < entity.end or not entity.text
        assert 0 <= entity.score <= 1
    for before, after in pairwise(prediction.entities):
        assert before.end <= after.start
    json.dumps(prediction.to_dict(), ensure_ascii=False).encode()
    return len(prediction.entities)


def tag_texts(times: int) -> Counter[str]:
    """Tag drawn texts, as such and as tokens in turn; counts what was there."""
    draw, counts = random.Random(0), Counter[str]()
    taggers = [finder("rpbert", "joined"), finder("bert", "apart"), finder("bilstm_crf", "joined")]
    for number in range(times // 50):
        tagger = taggers[number % len(taggers)]
        texts = [text_of(draw) for _ in range(50)]
        tokens = number % 4 == 0
        given = [{"tokens": text.split(" ")} if tokens else {"text": text} for text in texts]
        found = tagger.predict_batch(given)
        for text, prediction in zip(texts, found, strict=True):
            counts["entities"] += hold(prediction, cleaned(text))
            counts["texts"] += 1
            counts["of 10,000 characters"] += len(text) == 10_000
            counts["empty"] += not text
            counts["with surrogates"] += text != cleaned(text)
    return counts


def test_some_texts() -> None:
    counts = tag_texts(400)
    assert counts["entities"] > 400
    assert counts["of 10,000 characters"] > 0 < counts["empty"]


@pytest.mark.slow("generated text: Unicode, surrogates, emoji, NUL, 10,000 characters", "20,000")
def test_many_texts(soak: Soak) -> None:
    counts = tag_texts(20_000)
    soak(", ".join(f"{number:,} {what}" for what, number in counts.items()) + "; all offsets exact")


def test_words_with_surrogates_are_kept_as_they_are_given() -> None:
    post = Post.from_words("1", ("\ud83d", "Ada", "\0", "", "\udc00x"))
    (prediction,) = finder("rpbert", "joined").predict_batch([post])
    assert prediction.text == post.text
    assert all(post.text[e.start : e.end] == e.text for e in prediction.entities)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_post_of_3000_words_keeps_every_word_and_offset(family: str) -> None:
    names = [*(name.split()[0] for name in NAMES.values()), "שלום", "مرحبا", "#قدس"]
    words = [names[i // 7 % 7] if i % 7 == 0 else f"w{i}" for i in range(3000)]
    words[1500] = "x" * 1000  # longer than the encoder by itself
    text = "  ".join(words)
    model = tiny("bert", encoder=family)
    object.__setattr__(model.vocabulary, "marks", "joined")
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.bias")[1] = 50.0  # every word opens a name
    tagger = Tagger(model, "cpu")
    batch = tagger.decoder.collator([tagger.as_post(text)])
    counted = batch.word_of_subword[batch.word_of_subword >= 0]
    assert sorted(set(counted.tolist())) == list(range(3000))
    assert batch.subwords.shape[1] <= 64
    # No sub-word is lost and none counts twice, however the windows lie.
    alone = tagger.decoder.collator.lengths([Post.from_words("", (word,)) for word in words])
    assert len(counted) == sum(alone)
    (prediction,) = tagger.predict_batch([text])
    assert [entity.text for entity in prediction.entities] == words
    starts = accumulate((len(word) + 2 for word in words[:-1]), initial=0)
    assert [entity.start for entity in prediction.entities] == list(starts)
