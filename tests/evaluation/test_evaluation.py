"""Scoring a model on posts: which posts fall into which group, and what is left out."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpbert.errors import InputError
from rpbert.evaluation.evaluate import evaluate_model, evaluate_posts, only, render
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, Evaluation
from rpbert.inference import Decoded, Tagger
from rpbert.types import ImageStatus, Post, SourceScore
from tests.conftest import tiny
from tests.test_cli import run


def post(number: int, tag: str, relation: float | None, name: str = "Ada") -> Post:
    return Post.from_words(str(number), ("so", name), tags=("O", tag), relation=relation)


def answer(tag: str, r: float | None, image: ImageStatus = "used") -> Decoded:
    sources = (SourceScore("blocks", 0, r),) if r is not None and image == "used" else ()
    return Decoded(("O", tag), (0.5,) * (tag != "O"), r, image, sources)


TRAINED_ON = [post(0, "B-PER", None), post(1, "B-LOC", None, "Como")]


def scored(posts: list[Post], *answers: Decoded) -> Evaluation:
    """The evaluation of a tagger that gives set answers, post by post."""
    tagger = Tagger(tiny("rpbert", TRAINED_ON), "cpu")
    tagger.decoder.decode = lambda *_: list(answers)  # type: ignore[method-assign]
    return evaluate_posts(tagger, posts)


# Labels of two posts whose image adds, one found, and of one whose image does not; or r alone.
@pytest.mark.parametrize(
    ("labels", "r", "groups"),
    [
        ((1, 1, 0), (0.1, 0.2, 0.9), {ADDS: (2, 2, 1), DOES_NOT_ADD: (1, 1, 1)}),
        ((None, None, None), (0.5, 0.1, 0.9), {ADDS: (1, 1, 1), DOES_NOT_ADD: (2, 2, 1)}),
    ],
)
def test_posts_are_grouped_by_labels_else_by_r(
    labels: tuple[float | None, ...], r: tuple[float, ...], groups: dict[str, tuple[int, ...]]
) -> None:
    posts = [post(i, "B-PER", label) for i, label in enumerate(labels)]
    found = scored(posts, answer("B-PER", r[0]), answer("O", r[1]), answer("B-PER", r[2]))
    assert found.tags is not None
    strict = {name: (of.posts, of.strict) for name, of in found.tags.by_group.items()}
    assert {k: (posts, s.support, s.correct) for k, (posts, s) in strict.items()} == groups
    assert (found.relation.accuracy if found.relation else None) == (0 if labels[0] else None)


def test_relations_of_posts_whose_image_could_not_be_read_do_not_count() -> None:
    posts = [post(0, "O", 1), post(1, "O", 1), post(2, "O", 0)]
    found = scored(
        posts, answer("O", 0.9), answer("O", 0.0, "missing"), answer("O", 0.0, "unreadable")
    )
    assert found.relation is not None
    assert found.relation.support == 1
    assert found.images == {"used": 1, "none": 0, "missing": 1, "unreadable": 1}


def test_only_the_groups_asked_for_are_left() -> None:
    posts = [post(0, "B-PER", 1), post(1, "B-LOC", 0)]
    found = scored(posts, answer("B-PER", 0.9), answer("B-LOC", 0.1))
    by_type: Any = only(found, "type")
    by_relation: Any = only(found, "relation").tags
    assert (set(by_type.tags.strict.by_type), by_type.tags.by_group) == ({"PER", "LOC"}, {})
    assert by_type.relation is None
    assert (by_relation.strict.by_type, set(by_relation.by_group)) == ({}, {ADDS, DOES_NOT_ADD})


def test_what_cannot_be_scored_is_refused() -> None:
    bare = Post.from_words("9", ("so", "Ada"))
    with pytest.raises(InputError, match="9: found no tags"):
        scored([post(0, "O", None), bare], answer("O", None), answer("O", None))
    with pytest.raises(InputError, match="nothing to score"):
        scored([bare], answer("O", None))
    with pytest.raises(InputError, match="--by relation"):
        only(scored([post(0, "O", None)], answer("O", None)), "relation")


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny("bert", TRAINED_ON).save(tmp_path / "model")
    return str(tmp_path / "model")


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows)))
    return path


def test_a_saved_model_knows_the_entities_of_its_training(model: str, tmp_path: Path) -> None:
    rows = [{"tokens": ["so", name], "tags": ["O", "B-PER"]} for name in ("Ada", "Turing")]
    posts = written(tmp_path / "posts.jsonl", *rows)
    plain: Any = evaluate_model(model, posts)
    other: Any = evaluate_model(model, posts, precision="bf16")
    found = plain.by_familiarity
    assert [found[name].strict.support for name in ("seen", "unseen")] == [1, 1]
    saved = json.loads((Path(model) / "model.json").read_text())["entities"]
    assert len(saved) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", entry) for entry in saved)  # no text of the posts
    # Another precision is scored beside float32.
    assert (plain.fp32_f1, other.fp32_f1) == (None, plain.tags.strict.f1)
    assert ["in fp32" in render(asdict(e)) for e in (plain, other)] == [False, True]


def test_words_cut_at_gold_entities_are_counted(model: str, tmp_path: Path) -> None:
    row = {"text": "so #AdaNow", "entities": [{"start": 4, "end": 7, "label": "PER"}]}
    found = evaluate_model(model, written(tmp_path / "posts.jsonl", row))
    assert found.cut_words == 1
    assert "1 words cut at gold entities" in render(asdict(found))


def test_a_folder_is_scored_on_its_test_split_alone(model: str, tmp_path: Path) -> None:
    written(tmp_path / "data" / "train.jsonl", {"tokens": ["so"], "tags": ["O"]})
    with pytest.raises(InputError, match="no split 'test'"):
        evaluate_model(model, tmp_path / "data")


def test_the_curve_is_printed_and_drawn(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = written(tmp_path / "posts.jsonl", {"tokens": ["so", "Ada"], "tags": ["O", "B-PER"]})
    plot = tmp_path / "curve.png"
    code, out, _ = run(capsys, "evaluate", model, posts, "--curve", plot)
    found = evaluate_model(model, posts)
    rows = [line.split() for line in out.splitlines()[-21:]]
    assert (code, rows[0][0], plot.read_bytes()[:4]) == (0, "threshold", b"\x89PNG")
    shares = [[100 * of.precision, 100 * of.recall, 100 * of.coverage] for of in found.curve]
    np.testing.assert_allclose(
        [[float(row[i]) for i in (1, 2, 4)] for row in rows[1:]], shares, 1e-2
    )
    code, _, err = run(capsys, "evaluate", model, posts, "--curve", tmp_path / "curve.txt")
    assert (code, "'.txt'" in err) == (2, True)
