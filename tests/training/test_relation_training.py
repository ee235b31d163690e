"""What Task#1 learns from: each source of relations, held to plain counting, and in training."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from rpbert.config.run import (
    DataSettings,
    MismatchSource,
    Rates,
    TrainingSettings,
)
from rpbert.errors import InputError
from rpbert.evidence.base import EvidenceReader
from rpbert.evidence.texts import CaptionSettings, TextReader
from rpbert.models.saved import TaggingModel
from rpbert.training.relation_sources import MismatchedPairs, RelationSupply, relation_posts
from rpbert.training.tasks import RelationTask
from rpbert.training.train import train
from rpbert.types import Post, Regions
from tests.conftest import EVIDENCE, made_posts, tiny
from tests.training_runs import data_folder, records, settings, with_data


def test_the_relation_is_learnt_from_evidence_that_is_no_image(data: Path, tmp_path: Path) -> None:
    """Task#1 trains on the posts that have the evidence, whatever it is."""
    shutil.rmtree(data / "images")
    regions = {}
    for post in made_posts(8)[:6]:
        assert isinstance(post.images[0].regions, Regions)
        regions[f"{post.id}/features"] = post.images[0].regions.features
        regions[f"{post.id}/boxes"] = post.images[0].regions.boxes
    save_file(regions, data / "regions.safetensors")
    chosen = settings(data, epochs=1)
    model = {**chosen.model, "evidence": EVIDENCE["stored-regions"]}
    train(chosen.model_copy(update={"model": model}), tmp_path / "run")
    (line,) = records(tmp_path / "run")
    assert line["images"] == {"relation": {"used": 6}, "tagging": {"used": 6, "none": 2}}
    assert line["loss"]["relation"] > 0
    assert line["dev_relation"]["support"] == 6


def test_a_run_without_task_1_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped, why = "Task#1 is skipped", "relation labels but no image: "
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("bert", {"relations": "trc"}, f"{skipped}; data.relations is not read"),
        ("rpbert", {"relation_source": "none"}, skipped),
        ("rpbert", {}, why + skipped),
    ]
    shutil.rmtree(data / "images")
    for number, (system, given, said) in enumerate(cases):
        run = tmp_path / str(number)
        train(with_data(settings(data, system, epochs=1), **given), run)
        assert said in capsys.readouterr().err
        assert set(records(run)[0]["loss"]) == {"tagging"}


def test_relations_come_from_posts_with_other_tags(unlabelled: Path, tmp_path: Path) -> None:
    other = data_folder(tmp_path / "other")
    (other / "train.txt").write_text((other / "train.txt").read_text().replace("-PER", "-PERSON"))
    train(with_data(settings(unlabelled, epochs=1), relations=other), tmp_path / "run")
    assert records(tmp_path / "run")[0]["loss"]["relation"] > 0


def test_pairs_are_made_and_labels_that_no_source_asks_for_are_not_read(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = with_data(settings(unlabelled, epochs=1), relations=unlabelled)
    result = train(with_data(chosen, relation_source="mismatch"), tmp_path / "run")
    said = "the gate learns from mismatch, 8 own and 8 exchanged images (16 posts)"
    assert f"{said}; data.relations is not read" in capsys.readouterr().err
    assert TaggingModel.load(result.model).notes["relation_source"].startswith(said)
    (line,) = records(tmp_path / "run")
    assert line["images"] == {"relation": {"used": 16}, "tagging": {"used": 8}}


def test_sources_that_are_mixed_all_count(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soft.tsv").write_text("1\t0.25\n3\t0.5\n99\t1\n")
    sources = {
        "labels": {"weight": 2},
        "soft": {"path": tmp_path / "soft.tsv"},
        "mismatch": {"negatives": 3, "weight": 0.5},
    }
    train(with_data(settings(data, epochs=1), relation_source=sources), tmp_path / "run")
    said = capsys.readouterr().err
    assert "labels (8 posts, each counted 2 times)" in said
    assert "probabilities (2 posts)" in said
    assert "mismatch, 0 own and 24 exchanged images (24 posts, each counted 0.5 times)" in said
    assert records(tmp_path / "run")[0]["images"]["relation"] == {"used": 34}


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ({}, {"relation_source": "labels"}, "no training post with both image and relation"),
        ({}, {"relation_source": {"soft": {"path": "/nowhere"}}}, "no such file"),
        ({}, {"relations": "."}, "no post with both image and relation"),
        ({"gate": "oracle"}, {}, "no training post with a relation; expected relation lab"),
        ({"system": "lstm_cnn"}, {}, "no post with a relation"),
    ],
)
def test_a_source_with_nothing_to_learn_from_is_named(
    unlabelled: Path, tmp_path: Path, model: dict[str, Any], given: dict[str, Any], words: str
) -> None:
    chosen = settings(unlabelled, model.get("system", "rpbert"))
    given = {key: unlabelled if value == "." else value for key, value in given.items()}
    chosen = with_data(chosen.model_copy(update={"model": {**chosen.model, **model}}), **given)
    with pytest.raises(InputError, match=words):
        train(chosen, tmp_path / "run")


def test_the_weight_of_task_1_counts_where_moments_are_shared(data: Path, tmp_path: Path) -> None:
    weights = []
    for weight in (1.0, 0.05):
        chosen = settings(data, epochs=1, moments="shared", relation_weight=weight)
        train(chosen, tmp_path / str(weight))
        file = tmp_path / str(weight) / "checkpoints/epoch-0001/system.safetensors"
        weights.append(load_file(file)["encoder.bert.encoder.layer.0.output.dense.weight"])
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    with pytest.raises(ValidationError, match="moments: shared"):
        TrainingSettings(relation_weight=0.05)


CAPTIONS = EvidenceReader([TextReader(lambda caption: [1] * len(caption), CaptionSettings())])
RATES = Rates(head=1e-3, encoder=1e-3, projection=1e-3, visual=1e-3)


def captioned(*rows: tuple[str, str], **known: Any) -> list[Post]:
    return [
        Post.from_words(str(i), tuple(text.split()), caption=caption, **known)
        for i, (text, caption) in enumerate(rows)
    ]


def supply(sources: Any, posts: list[Post]) -> RelationSupply:
    given = DataSettings.model_validate({"path": "x", "relation_source": sources})
    return relation_posts(given, posts, "joined", CAPTIONS, seed=0)


def test_an_exchanged_pair_has_one_posts_text_and_anothers_image() -> None:
    posts = made_posts(8)
    posts[1] = posts[1].with_(images=posts[0].images)
    pairs = MismatchedPairs(posts, MismatchSource(negatives=3, weight=6), seed=1)
    by_words = {post.words: post for post in posts}
    for number in (1, 2):
        epoch = pairs.of_epoch(number)
        assert len(epoch) == len(pairs) == 8 + 3 * 8
        own, made = epoch[:8], epoch[8:]
        for post in own:
            assert post.image is by_words[post.words].image
            assert (post.relation, post.relation_weight) == (1.0, 6)
        assert Counter(post.words for post in made) == dict.fromkeys(by_words, 3)
        for post in made:
            source = by_words[post.words]
            assert post.image is not source.image
            assert any(
                (post.image, post.caption) == (other.image, other.caption)
                and post.images[0].regions is other.images[0].regions
                for other in posts
            )
            assert (post.relation, post.relation_weight) == (0.0, 2)
        assert all(post.tags is None for post in epoch)
    assert pairs.of_epoch(1) == pairs.of_epoch(1)
    assert pairs.of_epoch(1)[8:] != pairs.of_epoch(2)[8:]


def test_every_other_image_is_as_likely_but_those_of_the_same_look() -> None:
    posts = captioned(("a", "sea"), ("b", "sea"), ("c", "dog"), ("d", "cat"))
    pairs = MismatchedPairs(posts, MismatchSource(negatives=3000), seed=0)
    drawn = {text: Counter[str]() for text in "abcd"}
    for post in pairs.of_epoch(1)[4:]:
        drawn[post.words[0]][post.caption or ""] += 1
    own = {"dog": 1 / 2, "cat": 1 / 2}
    others = {"c": {"sea": 2 / 3, "cat": 1 / 3}, "d": {"sea": 2 / 3, "dog": 1 / 3}}
    for text, expected in {"a": own, "b": own, **others}.items():
        assert set(drawn[text]) == set(expected)
        for caption, share in expected.items():
            error = (share * (1 - share) / 3000) ** 0.5
            assert abs(drawn[text][caption] / 3000 - share) < 4 * error


def test_no_negative_is_what_stands_beside_the_same_words() -> None:
    """As two images of one post do, or two kinds of what one shows."""
    rows = [("a b", "sea"), ("a b", "dog"), ("a c", "cat"), ("d", "dog"), ("d", "sun")]
    pairs = MismatchedPairs(captioned(*rows), MismatchSource(negatives=9), seed=0)
    drawn = {(" ".join(post.words), post.caption) for post in pairs.of_epoch(1)[len(rows) :]}
    assert drawn == {(text, caption) for text, _ in rows for _, caption in rows} - set(rows)


def test_a_post_beside_whose_words_all_stands_has_no_negative() -> None:
    posts = captioned(("a", "sea"), ("a", "dog"), ("b", "dog"))
    epoch = MismatchedPairs(posts, MismatchSource(negatives=2), seed=0).of_epoch(1)
    drawn = [(" ".join(post.words), post.caption) for post in epoch[3:]]
    assert drawn == [("b", "sea")] * 2
    for few, number in ((posts[:2], 2), (captioned(("a", "sea"), ("b", "sea")), 1)):
        with pytest.raises(InputError, match=f"{number} different images"):
            supply("mismatch", few)


@pytest.mark.parametrize(
    ("source", "relations"),
    [("labels", [0.0, 1.0, 0.0, 1.0]), ("soft", [0.0, 1.0, 0.3, 0.7]), (None, [0, 1, 0.3, 0.7])],
)
def test_probabilities_are_rounded_as_labels_and_kept_as_what_they_are(
    source: str | None, relations: list[float], tmp_path: Path
) -> None:
    rows = [("a", "sea"), ("b", "dog"), ("c", "cat"), ("d", "sun")]
    given = zip(captioned(*rows), [0.0, 1.0, 0.3, 0.7], strict=True)
    found = supply(source, [post.with_(relation=relation) for post, relation in given])
    assert [post.relation for post in found.known] == relations
    (tmp_path / "soft.tsv").write_text("2\t0.75\n0\t0.125\nelsewhere\t1\n")
    found = supply({"soft": {"path": tmp_path / "soft.tsv"}}, captioned(*rows, relation=1.0))
    assert {post.id: post.relation for post in found.known} == {"0": 0.125, "2": 0.75}


def test_without_a_source_labels_go_before_exchanged_images() -> None:
    posts = captioned(("a", "sea"), ("b", "dog"), ("c", ""))
    assert supply(None, posts).pairs is not None
    labelled = [posts[0].with_(relation=1.0), *posts[1:]]
    found = supply(None, labelled)
    assert found.pairs is None
    assert [post.id for post in found.known] == ["0"]
    blind = supply(None, [post.with_(caption=None) for post in labelled])
    assert not blind
    assert blind.description == "relation labels but no caption"
    assert "neither relation labels nor any caption" in supply(None, posts[2:]).description


def test_a_post_that_is_labelled_stands_with_its_own_image_once() -> None:
    posts = captioned(("a", "sea"), ("b", "dog"), ("c", "cat"))
    posts[1] = posts[1].with_(relation=0.0)
    found = supply({"labels": {"weight": 3}, "mismatch": None}, posts)
    assert found.pairs is not None
    epoch = [*found.known, *found.pairs.of_epoch(1)]
    own = {post.id: (post.relation, post.relation_weight) for post in epoch if len(post.id) == 1}
    assert own == {"0": (1.0, 1.0), "1": (0.0, 3.0), "2": (1.0, 1.0)}
    assert len(epoch) == 3 + 3


def test_a_loss_is_multiplied_by_the_weight_of_its_source() -> None:
    model = tiny("rpbert")
    posts = [
        post.with_(relation=0.25, relation_weight=0.5 + i) for i, post in enumerate(made_posts())
    ]
    batch = model.collator().with_gold(posts)
    losses = RelationTask(posts, RATES).losses(model.system, batch)
    chances = torch.log_softmax(model.system.relation_logits(batch), 1).tolist()
    expected = [(0.5 + i) * -(0.75 * no + 0.25 * yes) for i, (no, yes) in enumerate(chances)]
    torch.testing.assert_close(losses, torch.tensor(expected))
