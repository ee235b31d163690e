"""Scoring a model on posts: which posts fall into which group, and what is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rpbert.errors import InputError
from rpbert.evaluation.evaluate import evaluate_model, evaluate_posts, only, render
from rpbert.evaluation.scoring import ADDS, DOES_NOT_ADD, Evaluation
from rpbert.inference import Decoded, Tagger
from rpbert.types import ImageStatus, Post
from tests.conftest import tiny


class Answers(Tagger):
    """A tagger that gives set answers, post by post."""

    def __init__(self, answers: list[Decoded], trained_on: list[Post]) -> None:
        super().__init__(tiny("rpbert", trained_on), "cpu")
        self.decoder.decode = lambda posts, batch_size=32: answers  # type: ignore[method-assign]


def post(number: int, tag: str, relation: float | None, name: str = "Ada") -> Post:
    return Post.from_words(str(number), ("so", name), tags=("O", tag), relation=relation)


def answer(tag: str, r: float | None, image: ImageStatus = "used") -> Decoded:
    return Decoded(("O", tag), (0.5,) * (tag != "O"), r, image)


TRAINED_ON = [post(0, "B-PER", None), post(1, "B-LOC", None, "Como")]


def by_group(evaluation: Evaluation) -> dict[str, tuple[int, int, int]]:
    """Of each group its posts, gold entities and correct ones."""
    assert evaluation.tags is not None
    return {
        name: (scores.posts, scores.strict.overall.gold, scores.strict.overall.correct)
        for name, scores in evaluation.tags.by_group.items()
    }


def test_posts_are_grouped_by_the_labels_of_the_data() -> None:
    # Two posts whose image adds, one of them found; one whose image does not, found; r is wrong.
    posts = [post(0, "B-PER", 1), post(1, "B-PER", 1), post(2, "B-PER", 0)]
    answers = [answer("B-PER", 0.1), answer("O", 0.2), answer("B-PER", 0.9)]
    found = evaluate_posts(Answers(answers, TRAINED_ON), posts)
    assert by_group(found) == {ADDS: (2, 2, 1), DOES_NOT_ADD: (1, 1, 1)}
    assert found.relation is not None
    assert found.relation.accuracy == 0


def test_without_labels_posts_are_grouped_by_the_models_r() -> None:
    posts = [post(0, "B-PER", None), post(1, "B-PER", None), post(2, "B-PER", None)]
    answers = [answer("B-PER", 0.9), answer("O", 0.5), answer("O", 0.1)]
    found = evaluate_posts(Answers(answers, TRAINED_ON), posts)
    assert by_group(found) == {ADDS: (1, 1, 1), DOES_NOT_ADD: (2, 2, 0)}
    assert found.relation is None


def test_entities_are_seen_if_the_model_was_trained_on_them() -> None:
    posts = [post(0, "B-PER", None), post(1, "B-PER", None, "Como"), post(2, "B-LOC", None, "COMO")]
    answers = [answer("B-PER", None), answer("O", None), answer("B-LOC", None)]
    found = evaluate_posts(Answers(answers, TRAINED_ON), posts).by_familiarity
    assert found["seen"].strict.overall.gold == 2  # case is ignored, the type is not
    assert found["unseen"].strict.overall.gold == 1
    assert found["unseen"].strict.overall.correct == 0


def test_relations_of_posts_whose_image_could_not_be_read_do_not_count() -> None:
    posts = [post(0, "O", 1), post(1, "O", 1), post(2, "O", 0)]
    answers = [answer("O", 0.9), answer("O", 0.0, "missing"), answer("O", 0.0, "unreadable")]
    found = evaluate_posts(Answers(answers, TRAINED_ON), posts)
    assert found.relation is not None
    assert found.relation.support == 1
    assert found.images == {"used": 1, "none": 0, "missing": 1, "unreadable": 1}


def test_only_the_groups_asked_for_are_left() -> None:
    posts = [post(0, "B-PER", 1), post(1, "B-LOC", 0)]
    answers = [answer("B-PER", 0.9), answer("B-LOC", 0.1)]
    found = evaluate_posts(Answers(answers, TRAINED_ON), posts)
    by_type, by_relation = only(found, "type"), only(found, "relation")
    assert by_type.tags is not None
    assert by_relation.tags is not None
    assert set(by_type.tags.strict.by_type) == {"PER", "LOC"}
    assert (by_type.tags.by_group, by_type.relation) == ({}, None)
    assert set(by_relation.tags.by_group) == {ADDS, DOES_NOT_ADD}
    assert by_relation.tags.strict.by_type == {}
    assert only(found, None) is found


def test_what_cannot_be_scored_is_refused() -> None:
    bare = Post.from_words("9", ("so", "Ada"))
    with pytest.raises(InputError, match="no tags"):
        evaluate_posts(Answers([answer("O", None)] * 2, TRAINED_ON), [post(0, "O", None), bare])
    with pytest.raises(InputError, match="nothing to score"):
        evaluate_posts(Answers([answer("O", None)], TRAINED_ON), [bare])
    scored = evaluate_posts(Answers([answer("O", None)], TRAINED_ON), [post(0, "O", None)])
    with pytest.raises(InputError, match="--by relation"):
        only(scored, "relation")


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
    found = evaluate_model(model, written(tmp_path / "posts.jsonl", *rows)).by_familiarity
    assert [found[name].strict.overall.gold for name in ("seen", "unseen")] == [1, 1]
    saved = json.loads((Path(model) / "model.json").read_text())["entities"]
    assert len(saved) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", entry) for entry in saved)  # no text of the posts


def test_words_cut_at_gold_entities_are_counted(model: str, tmp_path: Path) -> None:
    row = {"text": "so #AdaNow", "entities": [{"start": 4, "end": 7, "label": "PER"}]}
    found = evaluate_model(model, written(tmp_path / "posts.jsonl", row))
    assert found.cut_words == 1
    assert "1 words cut at gold entities" in render(found)


def test_a_folder_is_scored_on_its_test_split_alone(model: str, tmp_path: Path) -> None:
    written(tmp_path / "data" / "train.jsonl", {"tokens": ["so"], "tags": ["O"]})
    with pytest.raises(InputError, match="no split 'test'"):
        evaluate_model(model, tmp_path / "data")


def test_another_precision_is_scored_beside_float32(model: str, tmp_path: Path) -> None:
    posts = written(tmp_path / "posts.jsonl", {"tokens": ["so", "Ada"], "tags": ["O", "B-PER"]})
    plain, other = evaluate_model(model, posts), evaluate_model(model, posts, precision="bf16")
    assert plain.fp32_f1 is None
    assert plain.tags is not None
    assert other.fp32_f1 == plain.tags.strict.f1
    assert "in fp32" in render(other)
    assert "in fp32" not in render(plain)
