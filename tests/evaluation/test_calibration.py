"""Scores as probabilities: their error, and the temperatures that correct it."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from rpbert.data.labels import strict_spans
from rpbert.errors import InputError
from rpbert.evaluation.calibration import decoded_spans, fit_calibration
from rpbert.evaluation.evaluate import evaluate_posts, render
from rpbert.evaluation.scoring import expected_calibration_error
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.types import Calibration, Post, PostImage
from tests.conftest import made_posts, tiny


def half_right() -> tuple[TaggingModel, list[Post]]:
    """A model that is sure of itself, and posts in which half of what it finds is right."""
    model = tiny("bilstm_crf")
    with torch.no_grad():
        model.system.get_parameter("tagger.to_tags.weight").mul_(60)
    posts = [p.with_(id=f"{p.id}{n}", words=p.words[n:] + p.words[:n]) for n in range(3)
             for p in made_posts(images=False)]  # fmt: skip
    decoded = Tagger(model, "cpu").decoder.decode(posts)
    return model, [
        post.with_(tags=answer.tags if i % 2 else ("O",) * len(post.words))
        for i, (post, answer) in enumerate(zip(posts, decoded, strict=True))
    ]


def found_spans(model: TaggingModel, posts: list[Post]) -> list[tuple[float, bool]]:
    """The score of each span that a model finds, and whether it is in the gold."""
    decoded = Tagger(model, "cpu").decoder.decode(posts)
    return [
        (score, span in strict_spans(post.tags or ()))
        for post, answer in zip(posts, decoded, strict=True)
        for span, score in zip(strict_spans(answer.tags), answer.scores, strict=True)
    ]


def test_the_fitted_temperature_has_the_least_loss_and_changes_no_prediction(
    tmp_path: Path,
) -> None:
    model, posts = half_right()
    found = fit_calibration(model, posts, "cpu")
    assert found.spans > 1.2  # it was too sure

    def log_loss(temperature: float) -> float:
        spans = found_spans(replace(model, calibration=Calibration(spans=temperature)), posts)
        return -sum(math.log(max(p if right else 1 - p, 1e-6)) for p, right in spans)

    for other in (1.0, 0.9 * found.spans, 1.1 * found.spans):
        assert log_loss(found.spans) <= log_loss(other) + 1e-4
    replace(model, calibration=found).save(tmp_path / "model")
    tagger = Tagger.from_pretrained(tmp_path / "model", "cpu")
    assert tagger.model.calibration == found
    before, after = Tagger(model, "cpu").predict_batch(posts), tagger.predict_batch(posts)
    assert [[(e.start, e.label) for e in p.entities] for p in before] == [
        [(e.start, e.label) for e in p.entities] for p in after
    ]
    evaluation = evaluate_posts(tagger, posts)
    scored = evaluation.calibration["spans"]
    expected = expected_calibration_error(*zip(*found_spans(model, posts), strict=True))
    assert scored.after < scored.before == pytest.approx(expected, abs=1e-6)
    assert scored.temperature == found.spans
    assert "calibration error of spans" in render(asdict(evaluation))


def test_r_is_fitted_and_left_as_it_is() -> None:
    model = tiny("rpbert")
    posts = [p.with_(id=f"{p.id}{n}") for n in range(2) for p in made_posts()]
    relations = [p.relation for p in Tagger(model, "cpu").predict_batch(posts)]
    posts = [  # three in four as the model says
        p.with_(relation=float((r > 0.5) == (i % 4 > 0)))
        for i, (p, r) in enumerate(zip(posts, relations, strict=True))
        if r is not None
    ]
    found = fit_calibration(model, posts, "cpu")
    assert found.relation != 1.0
    tagger = Tagger(replace(model, calibration=found), "cpu")
    assert [p.relation for p in tagger.predict_batch(posts)] == relations
    unlabelled = [p.with_(tags=("O",) * len(p.words), relation=None) for p in posts]
    assert fit_calibration(tiny("bilstm_crf"), unlabelled, "cpu") == Calibration()
    error = evaluate_posts(tagger, posts).calibration["relation"]
    assert error.support == len(posts)
    assert error.after < error.before


def test_r_of_each_image_is_held_to_its_own_relation() -> None:
    """As if each image were a post of its own."""
    tagger = Tagger(tiny("rpbert"), "cpu")
    first, second, third, fourth, *_ = made_posts()
    several = [
        one.with_(images=(*one.images, PostImage(other.image, relation=relation)))
        for one, other, relation in (
            (first, second, 1.0),
            (third, fourth, None),
            (second, first, 0.0),
        )
    ]
    _, found = decoded_spans(tagger, several, 2)
    apart = [p for post in several for p in post.split_by_image() if p.relation is not None]
    scores = [answer.relation for answer in tagger.decoder.decode(apart)]
    expected = [(post.relation, r) for r, post in zip(scores, apart, strict=True)]
    assert len(found) == 5
    torch.testing.assert_close(torch.tensor(sorted(found)), torch.tensor(sorted(expected)))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(wrong: float, tmp_path: Path) -> None:
    replace(tiny("bilstm_crf"), calibration=Calibration(spans=wrong)).save(tmp_path)
    with pytest.raises(InputError, match="temperatures"):
        TaggingModel.load(tmp_path)
