"""The Tagger: offsets, order, streams, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from rpbert import Post, Tagger
from rpbert.data.labels import strict_spans
from rpbert.errors import InputError
from rpbert.inference import Decoder
from rpbert.types import Entity, ImageStatus, Prediction, image_counts
from tests.conftest import EVIDENCE, made_posts, picture, tiny
from tests.modules.test_crf import Enumerated

TAGGER = Tagger(tiny("rpbert"), "cpu")


def finder() -> Tagger:
    """A tagger that calls most words part of a name."""
    torch.manual_seed(0)
    model = tiny("rpbert")
    with torch.no_grad():
        bias = model.system.get_parameter("tagger.to_tags.bias")
        for tag, row in model.vocabulary.tag_rows.items():
            bias[row] = {"O": -1.0, "B": 0.0, "I": 0.6}[tag[0]]
    return Tagger(model, "cpu")


FINDER = finder()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_offsets_are_exact_on_any_text(text: str) -> None:
    prediction = TAGGER.predict(text)
    assert prediction.text == text
    end = 0
    for entity in prediction.entities:
        assert text[entity.start : entity.end] == entity.text
        assert end <= entity.start < entity.end
        assert 0 <= entity.score <= 1
        end = entity.end


def test_predictions_hold_the_entities_that_seqeval_reads_from_the_tags() -> None:
    """Of a model whose weights find something: names of several words are among it."""
    posts = made_posts(24, images=False)
    decoded = FINDER.decoder.decode(posts)
    found = FINDER.predict_batch([{"tokens": list(post.words)} for post in posts])
    longest = 0
    for post, answer, prediction in zip(posts, decoded, found, strict=True):
        expected = [
            (label, len(" ".join([*post.words[:a], ""])), len(" ".join(post.words[: b + 1])))
            for label, a, b in get_entities(list(answer.tags))
        ]
        assert [(e.label, e.start, e.end) for e in prediction.entities] == expected
        longest = max(longest, *(len(e.text.split()) for e in prediction.entities), 0)
    assert longest > 1


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_a_threshold_leaves_out_what_scores_less(threshold: float) -> None:
    posts = [{"tokens": list(post.words)} for post in made_posts(12, images=False)]
    whole = FINDER.predict_batch(posts)
    found = FINDER.predict_batch(posts, threshold=threshold)
    assert list(FINDER.predict_stream(posts, threshold=threshold)) == found
    assert [p.entities for p in found] == [
        [e for e in p.entities if e.score >= threshold] for p in whole
    ]
    text = "RT @user1 Ada Lovelace at Lake Como"
    alone = FINDER.predict(text, threshold=threshold)
    assert alone == FINDER.predict(text).above(threshold)


def test_a_prediction_says_why_it_is_doubtful() -> None:
    cases: list[tuple[float | None, ImageStatus, float, list[str]]] = [
        (0.9, "used", 0.8, []),
        (None, "none", 0.8, []),
        (0.45, "used", 0.8, ["r near 0.5: 0.45"]),
        (0.5, "none", 0.8, []),
        (0.0, "unreadable", 0.3, ["low score 0.30: PER Ada", "image unreadable"]),
    ]
    for relation, image, score, reasons in cases:
        found = Prediction("1", "Ada", [Entity("Ada", "PER", 0, 3, score)], relation, image)
        assert found.doubts() == reasons
        assert found.doubts(least=0.2) == [one for one in reasons if "score" not in one]


def test_order_is_kept_whatever_the_lengths() -> None:
    texts = [f"post {'word ' * (i * 7 % 23)}{i}" for i in range(50)]
    assert [p.text for p in TAGGER.predict_batch(texts, batch_size=4)] == texts
    assert [p.text for p in TAGGER.predict_stream(iter(texts), batch_size=4)] == texts


def test_a_stream_is_read_as_it_is_needed() -> None:
    taken = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            next(taken)
            yield "a post without end"

    stream = TAGGER.predict_stream(endless(), batch_size=2)
    list(itertools.islice(stream, 10))
    assert next(taken) <= 2 * 16 * 2


def test_the_score_of_a_span_is_its_probability() -> None:
    """Against the sum over all K^W sequences of a post of three words."""
    model = tiny("bert")
    with torch.no_grad():  # a new model that finds something
        model.system.get_parameter("tagger.to_tags.bias")[0] = -3
    decoder, names = Decoder(model, model.collator()), model.vocabulary.tags
    batch = model.collator()([Post.from_words("p", ("Ada", "Lovelace", "Como"))])
    emissions = model.system(batch).emissions[0].detach()
    every = Enumerated(model.system.crf, emissions, decoder.constraint)
    weights = every.scores.detach().softmax(0)
    (decoded,) = decoder.decode_batch(batch)
    spans = strict_spans(decoded.tags)
    assert spans
    for span, found in zip(spans, decoded.scores, strict=True):
        held = [span in strict_spans([names[tag] for tag in path]) for path in every.paths]
        assert found == pytest.approx(float(weights[torch.tensor(held)].sum()), abs=1e-5)


def test_what_became_of_an_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    assert TAGGER.predict("Ada").image == "none"
    assert TAGGER.predict("Ada", image=tmp_path / "no.jpg").image == "missing"
    assert TAGGER.predict("Ada", image=tmp_path / "broken.jpg").image == "unreadable"
    assert TAGGER.predict("Ada", image=b"").image == "unreadable"
    assert TAGGER.predict("Ada", image=tmp_path / "broken.jpg").relation == 0.0
    text_only = Tagger(tiny("bert"), "cpu").predict("Ada", image=picture(1))
    assert (text_only.relation, text_only.image) == (None, "none")


def test_a_caption_in_place_of_the_image() -> None:
    tagger = Tagger(tiny("rpbert", evidence=EVIDENCE["captions"]), "cpu")
    used = tagger.predict("Ada", caption="two dogs")
    assert used.image == "used"
    assert used.relation
    assert tagger.predict_batch([{"id": "0", "text": "Ada", "caption": "two dogs"}]) == [used]
    for caption in (None, "", "\u200d"):
        unseen = tagger.predict("Ada", image=picture(1), caption=caption)
        assert (unseen.image, unseen.relation) == ("none", 0.0)


def test_text_stays_as_given_but_for_lone_surrogates() -> None:
    (prediction,) = TAGGER.predict_batch([{"text": "Ada,Como", "tokens": ["Ada", ",", "Como"]}])
    assert (prediction.id, prediction.text) == ("0", "Ada,Como")
    given = "\ud800 Ada \udfff"
    assert TAGGER.predict(given).text == "\ufffd Ada \ufffd"
    assert TAGGER.predict_batch([Post.from_words("1", ("\ud800", "Ada"))])[0].entities is not None


def test_saving_never_replaces_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        TAGGER.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    TAGGER.save_pretrained(tmp_path / "model")
    TAGGER.save_pretrained(tmp_path / "model")
    assert Tagger.from_pretrained(tmp_path / "model").predict("Ada").text == "Ada"


@pytest.mark.parametrize("post", [42, {"id": "x"}, {"text": 3}, {"tokens": "Ada"}, {"tokens": [1]}])
def test_what_is_no_post_is_refused(post: object) -> None:
    with pytest.raises(InputError, match="posts:0"):
        TAGGER.predict_batch([post])  # type: ignore[list-item]


def read_before_a_fault() -> Iterator[str]:
    yield from ("Ada", "Como")
    raise OSError("the source is gone")


def test_a_stream_gives_what_it_read_before_its_source_failed() -> None:
    stream = TAGGER.predict_stream(read_before_a_fault(), batch_size=4)
    assert [next(stream).text, next(stream).text] == ["Ada", "Como"]
    with pytest.raises(OSError, match="gone"):
        next(stream)
    assert TAGGER.predict("Ada").text == "Ada"


WRONG_CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: TAGGER.predict_batch("Ada"), "posts: found one str; expected a list"),
    (lambda: TAGGER.predict_batch({"text": "Ada"}), "one dict"),  # type: ignore[arg-type]
    (lambda: list(TAGGER.predict_stream("Ada")), "one str"),
    (lambda: TAGGER.predict_batch(["Ada"], batch_size=-1), "batch_size: found -1"),
    (lambda: list(TAGGER.predict_stream(["Ada"], batch_size=0)), "batch_size: found 0"),
    (lambda: TAGGER.predict("Ada", image="https://x.org/a.jpg"), "addresses are not fetched"),
    (lambda: TAGGER.predict("Ada", image=["s3://x/a.jpg"]), "'s3://x/a.jpg'"),
    (lambda: Tagger(tiny("bert"), "cuda:99"), "device: found 'cuda:99'; expected cpu"),
    (lambda: Tagger.from_pretrained("nowhere", device="gpu"), "device: found 'gpu'; expected cpu"),
]


@pytest.mark.parametrize(("call", "said"), WRONG_CALLS)
def test_wrong_calls_are_told_in_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        call()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_tagger_is_copied_and_pickled(copied: Callable[[Tagger], Tagger]) -> None:
    TAGGER.predict("Ada", image=picture(1))  # its threads are running
    other = copied(TAGGER)
    found = [one.predict("Ada Lovelace in Como", image=picture(1)) for one in (other, TAGGER)]
    assert found[0] == found[1]
    assert other.model.system is not TAGGER.model.system


def test_every_unreadable_image_says_why_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """In predictions, and in counts that were added up."""
    Image.new("L", (12_000, 9_000)).save(tmp_path / "large.png")
    contents = {b"\0\0\0\x18ftypheic": "HEIC", b"<!DOCTYPE html>": "HTML", b"%PDF-1.7": "PDF",
                b"\xff\xd8nothing": "not an image", b"": "empty file"}  # fmt: skip
    large, none = (
        (tmp_path / "large.png", "12000 × 9000 pixels"),
        (Image.new("L", (0, 0)), "0 × 0 pixels"),
    )
    cases: list[tuple[Any, str]] = [*contents.items(), large, none]
    for source, reason in cases:
        found = TAGGER.predict("Ada", image=source)
        assert reason in found.to_dict()["image_reason"]
        assert reason in image_counts(Counter([found.image]) + Counter(["unreadable"]))
        assert found == pickle.loads(pickle.dumps(found))
    assert "image_reason" not in TAGGER.predict("Ada", image=tmp_path / "no.jpg").to_dict()
    assert image_counts({"used": 1}, ("used", "unreadable")) == "1 used, 0 unreadable"
    assert not recwarn.list


def test_scores_that_are_no_numbers_are_no_prediction() -> None:
    model = tiny("rpbert")
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.bias")[0] = float("nan")
    with pytest.raises(InputError, match="no numbers"):
        Tagger(model, "cpu").predict("Ada")
