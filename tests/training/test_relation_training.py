"""What Task#1 learns from in training, and what a run says of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from rpbert.config.run import RelationSources, TrainingSettings, load_run
from rpbert.errors import InputError
from rpbert.inference import Tagger
from rpbert.models.saved import TaggingModel
from rpbert.training.train import train
from rpbert.types import Regions
from tests.conftest import EVIDENCE, made_posts
from tests.training_runs import data_folder, records, settings, with_data


@pytest.mark.parametrize("kind", ["captions", "stored-regions"])
def test_the_relation_is_learnt_from_evidence_that_is_no_image(
    data: Path, tmp_path: Path, kind: str
) -> None:
    """Task#1 trains on the posts that have the evidence, whatever it is."""
    shutil.rmtree(data / "images")
    regions, captions = {}, []
    for post in made_posts(8)[:6]:
        assert isinstance(post.images[0].regions, Regions)
        regions[f"{post.id}/features"] = post.images[0].regions.features
        regions[f"{post.id}/boxes"] = post.images[0].regions.boxes
        captions.append(f"{post.id}\t{post.caption}")
    save_file(regions, data / "regions.safetensors")
    (data / "captions.tsv").write_text("\n".join(captions))
    chosen = settings(data, epochs=1)
    model = {**chosen.model, "evidence": EVIDENCE[kind]}
    train(chosen.model_copy(update={"model": model}), tmp_path / "run")
    (line,) = records(tmp_path / "run")
    assert line["images"] == {"relation": {"used": 6}, "tagging": {"used": 6, "none": 2}}
    assert line["loss"]["relation"] > 0
    assert line["dev_relation"]["support"] == 6
    predictions = Tagger.from_pretrained(tmp_path / "run").predict_batch(made_posts(8)[5:7])
    assert [p.image for p in predictions] == ["used", "used"]


@pytest.mark.parametrize(
    ("system", "given", "said"),
    [
        ("bert", {"relations": "trc"}, "Task#1 is skipped; data.relations is not read"),
        ("rpbert", {"relation_source": "none"}, "Task#1 is skipped"),
        ("rpbert", {}, "relation labels but no image: Task#1 is skipped"),
    ],
)
def test_a_run_without_task_1_says_so(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    system: str,
    given: dict[str, Any],
    said: str,
) -> None:
    if not given:
        shutil.rmtree(data / "images")
    train(with_data(settings(data, system, epochs=1), **given), tmp_path / "run")
    assert said in capsys.readouterr().err
    assert set(records(tmp_path / "run")[0]["loss"]) == {"tagging"}


def test_relations_may_come_from_posts_with_tags_of_other_types(
    unlabelled: Path, tmp_path: Path
) -> None:
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
    card = (result.model / "README.md").read_text()
    assert card.count("train.txt") == 1  # of the posts, and not of the labels again
    soft = {"soft": {"path": tmp_path / "soft.tsv"}}
    read: tuple[Any, ...] = ("labels", "soft", {"mismatch": None, "labels": None}, None)
    for source in (soft, "none", *read):
        expected = unlabelled if source in read else None
        assert with_data(chosen, relation_source=source).data.relations_read == expected


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
    saved = load_run(tmp_path / "run" / "config.yaml").data.relation_source
    assert saved == RelationSources.model_validate(sources)


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
    if given.get("relations") == ".":
        given = {"relations": unlabelled}
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
